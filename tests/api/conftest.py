from tests.prediction.conftest import bright_is_registered

__all__ = ["bright_is_registered"]
