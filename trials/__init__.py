"""How one configuration becomes one record: cost, caps, proxy training, score, status."""
