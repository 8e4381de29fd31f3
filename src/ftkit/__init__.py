"""ftkit: which way of fine-tuning is worth it, and can the answer be trusted?

The names of ``__init__.pyi`` are imported when they are first used, so that ``import ftkit`` stays fast.
"""

import lazy_loader

from ftkit.library_output import quiet_imports

quiet_imports()
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
