"""Encoders through Hugging Face Transformers and peft."""
