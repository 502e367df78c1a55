"""Settings: the schema, the shipped recipes, and how both become one frozen `Config`."""

from loralab.config.loading import Config, load_config
from loralab.config.schema import DataConfig, LoraConfig, ModelConfig, TrainConfig

__all__ = ["Config", "DataConfig", "LoraConfig", "ModelConfig", "TrainConfig", "load_config"]
