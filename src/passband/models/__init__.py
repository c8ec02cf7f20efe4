"""Networks: passband's own, which this import registers with timm, and the way to make any."""

from passband.models import cifar_resnet as cifar_resnet
from passband.models import conv_mixer as conv_mixer
from passband.models import conv_mixer_pixels as conv_mixer_pixels
from passband.models import hfc_resnet as hfc_resnet
from passband.models import hfc_resnet50 as hfc_resnet50
from passband.models import plain_networks as plain_networks
from passband.models import postact_resnet as postact_resnet
from passband.models import separable_resnet as separable_resnet
from passband.models import small_efficientnet as small_efficientnet
from passband.models import small_resnet18 as small_resnet18
from passband.models import spartan as spartan
from passband.models import wide_resnet as wide_resnet
