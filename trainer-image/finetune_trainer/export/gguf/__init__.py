"""GGUF files: made with llama.cpp and read back."""
