# The judge. What judges kernels, verify/kernels/, is a library of its own (kernels.cmake): it names every
# kernel of every backend, and only `dsa-verify ops` needs it.
#
# The rooms that compute are optimised in full. Those that read, decide and write are at -O1: a third of their
# compilation is saved.
file(GLOB_RECURSE verify_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/verify/*.cpp)
list(FILTER verify_sources EXCLUDE REGEX "verify/(main.cpp|commands/|kernels/)")
get_target_property(check_sources dsa_check SOURCES)
list(TRANSFORM check_sources PREPEND ${PROJECT_SOURCE_DIR}/)
list(REMOVE_ITEM verify_sources ${check_sources})
set(measure_sources ${verify_sources})
list(FILTER measure_sources INCLUDE REGEX "verify/(measure|runs|limits|defects)/")
list(REMOVE_ITEM verify_sources ${measure_sources})
set(verify_headers <nlohmann/json.hpp> <fmt/format.h> <algorithm> <filesystem> <functional> <map> <memory> <optional>
                   <string> <vector>)
add_library(dsa_measure OBJECT ${measure_sources})
add_library(dsa_verify ${verify_sources} $<TARGET_OBJECTS:dsa_measure>)
target_compile_options(dsa_verify PRIVATE ${DSA_READS})
foreach(target dsa_measure dsa_verify)
  target_link_libraries(${target} PUBLIC dsa_check dsa_reference dsa_backends
    PRIVATE dsa_exact pugixml::pugixml Boost::headers Threads::Threads)
  target_precompile_headers(${target} PRIVATE ${verify_headers})
endforeach()
include(${PROJECT_SOURCE_DIR}/cmake/names.cmake)

file(GLOB command_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/verify/commands/*.cpp)
if(NOT DSA_BACKENDS)
  list(TRANSFORM command_sources REPLACE "/(ops|golden_text)[.]cpp$" "/absent/\\1.cpp")
endif()
add_executable(dsa-verify ${PROJECT_SOURCE_DIR}/verify/main.cpp ${command_sources})
target_link_libraries(dsa-verify PRIVATE dsa_verify dsa_engine_arguments dsa_exact)
if(DSA_BACKENDS)
  target_link_libraries(dsa-verify PRIVATE dsa_text)
endif()
target_compile_options(dsa-verify PRIVATE ${DSA_READS})
target_precompile_headers(dsa-verify PRIVATE <CLI/CLI.hpp> <nlohmann/json.hpp> <fmt/format.h>)
