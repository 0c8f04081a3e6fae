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
install(FILES ${PROJECT_SOURCE_DIR}/python/dsa-lm-eval.pth DESTINATION . COMPONENT python)  # python/dsa/_registered.py
add_custom_target(dsa_package DEPENDS _core)
# The ops of the reference compute, and are optimised in full. The rest reads, decides and converts: at -O1 a third of
# its compilation is saved.
foreach(target _core nanobind-static dsa_core)
  target_compile_options(${target} PRIVATE ${DSA_READS})
endforeach()
# Of core, only what these name: no checkpoints, configurations or recordings. A symbol that is missing fails at import.
if(NOT DSA_PYTHON_PROGRAMS)
  get_target_property(core_needed dsa_core SOURCES)
  list(FILTER core_needed EXCLUDE REGEX "/(bind|checkpoint|config|outputs|recipe|recording|sha256|trace)[a-z_]*[.]cpp$")
  set_target_properties(dsa_core PROPERTIES SOURCES "${core_needed}")
endif()
