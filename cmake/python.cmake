# dsa._core, the compiled half of the Python package (pyproject.toml): the reference's ops, the cases and
# bounds of verify/kernels/cases/, and what they measure with. No backend and no judge is compiled for it.
find_package(Python COMPONENTS Interpreter Development.Module REQUIRED)
execute_process(COMMAND ${Python_EXECUTABLE} -m nanobind --cmake_dir OUTPUT_VARIABLE nanobind_ROOT
                OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
find_package(nanobind CONFIG REQUIRED)
file(GLOB python_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/python/bindings/*.cpp)
nanobind_add_module(_core NB_STATIC NOMINSIZE ${python_sources})
target_include_directories(_core SYSTEM PRIVATE ${NB_DIR}/include)  # its warnings are not ours
target_link_libraries(_core PRIVATE dsa_cases dsa_exact)
install(TARGETS _core LIBRARY DESTINATION dsa COMPONENT python)
add_custom_target(dsa_package DEPENDS _core)
# The ops of the reference compute, and are optimised in full. The rest reads, decides and converts: at -O1 a third of
# its compilation is saved.
foreach(target _core nanobind-static dsa_core dsa_check dsa_cases)
  target_compile_options(${target} PRIVATE -O1)
endforeach()
