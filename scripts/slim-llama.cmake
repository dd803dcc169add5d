# Leaves out llama.cpp's own programs and what only they use.
set(LLAMA_BUILD_COMMON OFF)
