#include "status.h"

namespace holdfast {

const char* code_name(Code code) {
  switch (code) {
#define X(name, number, text) \
  case Code::name:            \
    return #name;
    HOLDFAST_CODES(X)
#undef X
  }
  return "unknown";
}

const char* code_text(Code code) {
  switch (code) {
#define X(name, number, text) \
  case Code::name:            \
    return text;
    HOLDFAST_CODES(X)
#undef X
  }
  return "a code this build doesn't know";
}

}  // namespace holdfast
