# Included by llama.cpp's CMakeLists.txt. Its build always makes this library, which nothing of ours loads: without
# optimization that takes half the time.
cmake_language(DEFER CALL target_compile_options llama-common PRIVATE -O0)
