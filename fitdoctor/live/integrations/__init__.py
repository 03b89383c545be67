"""The monitor in training loops that others own: one module per framework, imported only by those who use it.

Each gives the `Monitor` what that framework knows (its model and optimizer, epochs, the validation's results) and
takes back what the monitor asks for (a stop). What is measured, and how, is the monitor's own affair.
"""
