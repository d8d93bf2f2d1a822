// crc32c_test.cc - the checksum against published vectors, and its fast form against its portable one.
#include "../../native/crc32c.h"

#include <string.h>

#include <random>
#include <vector>

#include "check.h"

using namespace holdfast;

int main() {
  printf("# variant %s\n", crc32c_variant());

  check::test("crc32c: RFC 3720 vectors", [] {
    std::vector<uint8_t> bytes(32, 0);
    CHECK_EQ(crc32c(0, bytes.data(), 32), 0x8a9136aau);
    memset(bytes.data(), 0xff, 32);
    CHECK_EQ(crc32c(0, bytes.data(), 32), 0x62a8ab43u);
    for (int i = 0; i < 32; ++i) bytes[i] = static_cast<uint8_t>(i);
    CHECK_EQ(crc32c(0, bytes.data(), 32), 0x46dd794eu);
    for (int i = 0; i < 32; ++i) bytes[i] = static_cast<uint8_t>(31 - i);
    CHECK_EQ(crc32c(0, bytes.data(), 32), 0x113fdb5cu);
    CHECK_EQ(crc32c(0, "123456789", 9), 0xe3069283u);
    CHECK_EQ(crc32c_portable(0, "123456789", 9), 0xe3069283u);
    CHECK_EQ(crc32c(0, nullptr, 0), 0u);
    CHECK_EQ(crc32c(0xe3069283u, nullptr, 0), 0xe3069283u);
  });

  std::mt19937_64 random(20);
  std::vector<uint8_t> bytes(64 << 10), copy(bytes.size() + 64);
  for (auto& byte : bytes) byte = static_cast<uint8_t>(random());

  check::test("crc32c: every length up to 1,000 at every alignment equals the portable form, copying or not", [&] {
    for (size_t length = 0; length <= 1000; ++length) {
      const size_t at = length % 16, to = random() % 16;
      check::context = "length " + std::to_string(length);
      const uint32_t wanted = crc32c_portable(7, bytes.data() + at, length);
      CHECK_EQ(crc32c(7, bytes.data() + at, length), wanted);
      memset(copy.data(), 0xa5, length + 40);
      CHECK_EQ(crc32c_copy(7, copy.data() + to, bytes.data() + at, length), wanted);
      CHECK(memcmp(copy.data() + to, bytes.data() + at, length) == 0);
      CHECK(copy[to + length] == 0xa5 && (to == 0 || copy[to - 1] == 0xa5));
      memset(copy.data(), 0xa5, length + 40);
      CHECK_EQ(crc32c_stream(7, copy.data() + to, bytes.data() + at, length), wanted);
      CHECK(memcmp(copy.data() + to, bytes.data() + at, length) == 0);
      CHECK(copy[to + length] == 0xa5 && (to == 0 || copy[to - 1] == 0xa5));
    }
  });

  check::test("crc32c: long lengths around the block sizes", [&] {
    for (size_t base : {3072u, 6144u, 16384u, 65000u}) {
      for (size_t length = base - 30; length <= base + 30; ++length) {
        check::context = "length " + std::to_string(length);
        const uint32_t wanted = crc32c_portable(0, bytes.data() + 3, length);
        CHECK_EQ(crc32c(0, bytes.data() + 3, length), wanted);
        CHECK_EQ(crc32c_copy(0, copy.data() + 1, bytes.data() + 3, length), wanted);
        CHECK(memcmp(copy.data() + 1, bytes.data() + 3, length) == 0);
        CHECK_EQ(crc32c_stream(0, copy.data() + 8, bytes.data() + 3, length), wanted);
        CHECK(memcmp(copy.data() + 8, bytes.data() + 3, length) == 0);
      }
    }
  });

  check::test("crc32c: a checksum goes on from where another one stopped", [&] {
    const uint32_t whole = crc32c(0, bytes.data(), 5000);
    for (int round = 0; round < 200; ++round) {
      const size_t cut = random() % 5001;
      check::context = "cut " + std::to_string(cut);
      CHECK_EQ(crc32c(crc32c(0, bytes.data(), cut), bytes.data() + cut, 5000 - cut), whole);
    }
  });

  check::test("crc32c: one flipped bit anywhere in a record changes it", [&] {
    const uint32_t whole = crc32c(0, bytes.data(), 4096);
    for (size_t bit = 0; bit < 4096 * 8; bit += 7) {
      bytes[bit / 8] ^= static_cast<uint8_t>(1 << (bit % 8));
      check::context = "bit " + std::to_string(bit);
      CHECK(crc32c(0, bytes.data(), 4096) != whole);
      bytes[bit / 8] ^= static_cast<uint8_t>(1 << (bit % 8));
    }
  });
  return check::done();
}
