"""Attacks: values that change images so that a model errs. Importing the package files each by its name."""

# One line per file of attacks; one that is not imported here is not found by name.
from passband.attacks import gradient_length as gradient_length
from passband.attacks import gradient_sign as gradient_sign
from passband.attacks import noise as noise
from passband.attacks import trades as trades
