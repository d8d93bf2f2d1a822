// sha256_test.cc - against the vectors of FIPS 180-4 and digests that OpenSSL (node:crypto) computed.
#include "../../native/sha256.h"

#include <string.h>

#include <string>
#include <vector>

#include "check.h"

using namespace holdfast;

namespace {

std::string hex(const uint8_t* digest) {
  std::string text;
  for (size_t i = 0; i < kSha256Bytes; ++i) {
    text += "0123456789abcdef"[digest[i] >> 4];
    text += "0123456789abcdef"[digest[i] & 15];
  }
  return text;
}

std::string sha256_of(const void* from, size_t bytes) {
  Sha256 hash;
  hash.update(from, bytes);
  uint8_t digest[kSha256Bytes];
  hash.finish(digest);
  return hex(digest);
}

}  // namespace

int main() {
  check::test("sha256: FIPS 180-4 vectors", [] {
    CHECK_EQ(sha256_of("", 0), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    CHECK_EQ(sha256_of("abc", 3), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    const char* two_blocks = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
    CHECK_EQ(sha256_of(two_blocks, strlen(two_blocks)),
             "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    const std::string million(1000000, 'a');
    CHECK_EQ(sha256_of(million.data(), million.size()),
             "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  });

  check::test("sha256: every length from 0 to 300 as node:crypto has it", [] {
    Sha256 all;
    uint8_t digest[kSha256Bytes];
    for (size_t length = 0; length <= 300; ++length) {
      std::vector<uint8_t> bytes(length);
      for (size_t i = 0; i < length; ++i) bytes[i] = static_cast<uint8_t>(i * 7 + length);
      Sha256 one;
      one.update(bytes.data(), length);
      one.finish(digest);
      all.update(digest, sizeof digest);
    }
    all.finish(digest);
    CHECK_EQ(hex(digest), "60d63ff40b5558727a9b786ac0be9300f7ca58fd9ddd3b2f3681b369018a87dc");
  });

  check::test("sha256: the pieces of an update don't matter", [] {
    std::vector<uint8_t> bytes(100000);
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i * 31 + (i >> 8));
    for (size_t step : {1u, 3u, 63u, 64u, 65u, 4096u, 100000u}) {
      Sha256 hash;
      for (size_t at = 0; at < bytes.size(); at += step) hash.update(&bytes[at], std::min(step, bytes.size() - at));
      uint8_t digest[kSha256Bytes];
      hash.finish(digest);
      check::context = "step " + std::to_string(step);
      CHECK_EQ(hex(digest), "5f3d22bea9131f434d922d55fb4b3359164af01bc996a9bbfd4b308f4bbebf75");
    }
  });
  return check::done();
}
