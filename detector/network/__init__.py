"""The built detector: the layers of a plan as nn.Modules."""
