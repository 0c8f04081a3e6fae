# Training on the CPU: a model with gradients (optimized/train/model/).
file(GLOB train_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/optimized/train/model/*.cpp)
add_library(dsa_train ${train_sources})
target_link_libraries(dsa_train PUBLIC dsa_cpu dsa_ranks)  # dsa_train_program.cmake has the ranks
target_compile_options(dsa_train PRIVATE -fno-math-errno -fno-trapping-math)
