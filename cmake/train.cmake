# Training on the CPU: a model with gradients (optimized/train/model/).
file(GLOB train_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/optimized/train/model/*.cpp)
add_library(dsa_train ${train_sources})
target_link_libraries(dsa_train PUBLIC dsa_cpu PRIVATE OpenMP::OpenMP_CXX)
target_compile_options(dsa_train PRIVATE -fno-math-errno -fno-trapping-math)
