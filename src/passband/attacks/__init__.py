"""Attacks: values that change images so that a model errs. Importing the package files each by its name."""

# One line per file of attacks; one that is not imported here is not found by name.
from passband.attacks import auto_pgd as auto_pgd
from passband.attacks import carlini_wagner as carlini_wagner
from passband.attacks import fab as fab
from passband.attacks import gradient_length as gradient_length
from passband.attacks import gradient_sign as gradient_sign
from passband.attacks import noise as noise
from passband.attacks import smallest as smallest
from passband.attacks import square as square
from passband.attacks import standard as standard
from passband.attacks import trades as trades
