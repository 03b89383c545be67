"""What layers put out: dead, saturated, collapsed or wrongly scaled from the start."""
