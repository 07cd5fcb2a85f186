"""What talks to llama.cpp: its C API, its log and its converters."""
