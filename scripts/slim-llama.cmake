# Leaves out llama.cpp's own programs and what only they use.
set(LLAMA_BUILD_COMMON OFF)

# Some virtual machines announce AMX and then do not let it run: the first matrix product would end the process.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  include(CheckCXXCompilerFlag)
  foreach(part tile int8 bf16)
    check_cxx_compiler_flag(-mno-amx-${part} HAS_NO_AMX_${part})
    if(HAS_NO_AMX_${part})
      add_compile_options($<$<COMPILE_LANGUAGE:C,CXX>:-mno-amx-${part}>)
    endif()
  endforeach()
endif()
