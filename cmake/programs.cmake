# The programs beside dsa-verify. What reads command lines and prints is at -O1: a third of its compilation is saved.
file(GLOB run_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/run/*.cpp ${PROJECT_SOURCE_DIR}/run/commands/*.cpp)
add_executable(dsa-run ${run_sources})
target_link_libraries(dsa-run PRIVATE dsa_run_parts dsa_engine_arguments dsa_exact)
target_compile_options(dsa-run PRIVATE ${DSA_READS})
set_source_files_properties(${PROJECT_SOURCE_DIR}/run/convert.cpp ${PROJECT_SOURCE_DIR}/run/quantise.cpp
                            PROPERTIES COMPILE_OPTIONS -O3
                            # GCC 12 crashes on a header that was precompiled at another level.
                            SKIP_PRECOMPILE_HEADERS ON)
target_precompile_headers(dsa-run PRIVATE <CLI/CLI.hpp>)

# What dsa-run and its tests share: MMLU's questions, and the server. run/serve/http.cpp alone includes cpp-httplib.
pkg_check_modules(HTTPLIB REQUIRED IMPORTED_TARGET cpp-httplib)
file(GLOB run_parts CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/run/mmlu/*.cpp ${PROJECT_SOURCE_DIR}/run/serve/*.cpp)
add_library(dsa_run_parts ${run_parts})
target_link_libraries(dsa_run_parts PUBLIC dsa_text_generation dsa_cli PRIVATE dsa_exact PkgConfig::HTTPLIB)
target_compile_options(dsa_run_parts PRIVATE ${DSA_READS})
target_precompile_headers(dsa_run_parts PRIVATE <nlohmann/json.hpp> <fmt/format.h> <algorithm> <filesystem> <functional>
                                                <string> <vector>)

add_executable(make_wide ${PROJECT_SOURCE_DIR}/data/make_wide.cpp)
target_link_libraries(make_wide PRIVATE dsa_core dsa_exact CLI11::CLI11)
target_compile_options(make_wide PRIVATE ${DSA_READS})

add_library(dsa_experiments ${PROJECT_SOURCE_DIR}/experiments/rates/common.cpp
                            ${PROJECT_SOURCE_DIR}/experiments/rates/unknown_candidates.cpp)
target_link_libraries(dsa_experiments PUBLIC dsa_verify PRIVATE dsa_exact)
foreach(name false_alarms false_gradient_alarms false_names thresholds visibility)
  add_executable(${name} ${PROJECT_SOURCE_DIR}/experiments/rates/${name}.cpp)
  target_link_libraries(${name} PRIVATE dsa_experiments dsa_cli dsa_exact)
  target_compile_options(${name} PRIVATE ${DSA_READS})
endforeach()

include(${PROJECT_SOURCE_DIR}/cmake/sweep.cmake)
include(${PROJECT_SOURCE_DIR}/cmake/bench_cuda.cmake)
find_package(benchmark REQUIRED)
file(GLOB bench_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/experiments/bench/*.cpp)
add_executable(dsa-bench ${bench_sources})
target_link_libraries(dsa-bench PRIVATE dsa_kernels dsa_engine_arguments dsa_bench_cuda dsa_exact
                                        benchmark::benchmark)
target_compile_options(dsa-bench PRIVATE ${DSA_READS})
target_precompile_headers(dsa-bench PRIVATE <CLI/CLI.hpp>)
