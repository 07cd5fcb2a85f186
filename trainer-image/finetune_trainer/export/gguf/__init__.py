"""GGUF files: written with llama.cpp and read back."""
