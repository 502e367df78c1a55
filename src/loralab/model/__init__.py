"""Text classifiers: the native encoder, models of Transformers and peft, adapters, and their files."""
