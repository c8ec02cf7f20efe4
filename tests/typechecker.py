"""What holds arguments to their annotations while tests run: shapes too, and an integer is a number."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
