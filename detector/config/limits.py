"""Largest numbers of a configuration: far above any use, and below what exhausts memory or time.

A number with a few zeros too many is thus refused where it is read, not when it is trained.
"""

MAX_CHANNELS = 65_536
"""Of one layer; ResNet-152 has 2,048."""
MAX_BLOCKS = 1_000
"""In one row of blocks, or of convolutions in a head; ResNet-152 has 36."""
MAX_KERNEL = 31
"""Side of a convolution's kernel."""
MAX_FACTOR = 1_000
"""By which published widths or depths are multiplied."""
MAX_SIDE = 16_384
"""Of training crops and cached images, in px."""
MAX_BATCH = 65_536
"""Images per step."""
MAX_EPOCHS = 1_000_000
MAX_CANDIDATES = 10_000
"""Anchors per level that an assigner considers for a face."""
