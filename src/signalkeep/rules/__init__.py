"""IS IT TRUE? Rules about signals: what each says, how it is applied, what a day of a device is worth. Pure.

contract.py    what a rule is, and the words that go with it
reading.py     what rules see: a signal as numbers, and what is remembered of its device
judge.py       applies rules to readings in their order; runs, the last good point, re-anchoring
days.py        a device's whole day, for rules that need a window; fleet.py: all devices together
catalogue.py   every rule there is, by id; one file per family beside it
own.py         rules that users write in the settings: condition and duration
scores.py      numerator and denominator per dimension, and the overall score
"""
