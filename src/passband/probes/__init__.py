"""Probes: a model and batches in, results out. Importing this package files every probe under its name."""

# One line per probe; a module that is not imported here is not found by name.
from passband.probes import activation_spectrum as activation_spectrum
from passband.probes import activations as activations
from passband.probes import bands as bands
from passband.probes import cost as cost
from passband.probes import detection as detection
from passband.probes import disagreement as disagreement
from passband.probes import envelope as envelope
from passband.probes import filtered as filtered
from passband.probes import gradients as gradients
from passband.probes import harden as harden
from passband.probes import heatmap as heatmap
from passband.probes import interactions as interactions
from passband.probes import kernels as kernels
from passband.probes import perturbation as perturbation
from passband.probes import reliance as reliance
from passband.probes import robustness as robustness
from passband.probes import saliency as saliency
from passband.probes import similarity as similarity
from passband.probes import unshuffle as unshuffle
from passband.probes.registry import PROBES as PROBES
from passband.probes.registry import Probe as Probe
