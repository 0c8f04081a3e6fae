#include "verify/measure/stats.hpp"

#include <boost/math/distributions/binomial.hpp>
#include <boost/math/distributions/fisher_f.hpp>
#include <boost/math/distributions/students_t.hpp>

namespace dsa::verify {

double student_quantile(double freedom, double tail) {
  return boost::math::quantile(
      boost::math::complement(boost::math::students_t_distribution<double>(freedom), tail));
}

double fisher_quantile(double numerator, double denominator, double tail) {
  return boost::math::quantile(boost::math::complement(
      boost::math::fisher_f_distribution<double>(numerator, denominator), tail));
}

double most_probable(int trials, int hits, double confidence) {
  return boost::math::binomial_distribution<double>::find_upper_bound_on_p(trials, hits,
                                                                           1 - confidence);
}

}  // namespace dsa::verify
