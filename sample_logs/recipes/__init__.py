"""The trainings behind the sample logs, by what is the matter with them."""
