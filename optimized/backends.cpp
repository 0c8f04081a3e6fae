#include "optimized/backends.hpp"

#include "core/words.hpp"
#include "optimized/cpu/model/engine.hpp"
#include "optimized/cuda/model/engine.hpp"

namespace dsa {

const std::vector<Backend>& backends() {
  static const std::vector<Backend> all = {
#ifdef DSA_BACKENDS
      {"cpu", cpu::plan, cpu::open},
      {"cuda", cuda::device::plan, cuda::device::open},
      {"cuda-host", cuda::host::plan, cuda::host::open},
#endif
  };
  return all;
}

std::vector<std::string> backend_names() {
  std::vector<std::string> names;
  for (const Backend& backend : backends()) names.push_back(backend.name);
  return names;
}

const Backend& backend_named(const std::string& name) {
  for (const Backend& backend : backends())
    if (backend.name == name) return backend;
  throw Error("this build has no backend \"" + name + "\"; choose " +
              alternatives(backend_names()));
}

void check_options(const std::string& backend, const EngineOptions& o) {
  require(o.tier.empty() || backend == "cpu",
          "--cpu chooses instructions of the backend cpu; leave it out for " + backend);
  require(o.mla.empty() || backend == "cpu",
          "--mla chooses a form of the backend cpu; leave it out for " + backend);
  require(o.threads == 0 || backend == "cpu",
          "--threads is of the backend cpu; leave it out for " + backend);
}

}  // namespace dsa
