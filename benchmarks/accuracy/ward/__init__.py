"""The ward: real small trainings, sick and healthy, whose true state is known by intervention.

    python -m benchmarks.accuracy.ward train      # every run, cached by what made it
    python -m benchmarks.accuracy.ward score      # arms, baselines, tables

The parts, in the order of the data: `tasks` and `nets` (what is learned, by what), `recipe` (everything that decides a
run), `training` (the loop, with the mistakes that a recipe asks for), `families`, `faults` and `odd` (the plan),
`store` (runs on disk), `truth` (labels by intervention), `arms` (what fitdoctor says), `baselines` and `peers` (what
others say), `repair` (does the first remedy work), `score` and `table`.
"""
