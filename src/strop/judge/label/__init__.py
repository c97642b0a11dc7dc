"""People label pairs in a browser, for judges to be calibrated on and policies to be trained on."""
