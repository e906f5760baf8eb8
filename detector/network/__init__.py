"""The same plan built as nn.Modules."""
