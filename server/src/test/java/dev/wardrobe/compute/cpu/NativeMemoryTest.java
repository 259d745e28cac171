package dev.wardrobe.compute.cpu;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;

/** What is freed, and where it goes. */
final class NativeMemoryTest {
  private static final Path STATUS = Path.of("/proc/self/status");
  private static final long PIECE = 8 << 20;
  private static final int PIECES = 16;

  @Test
  void trim_givesBackWhatTheAllocatorKeeps() throws IOException {
    assumeTrue(Files.isReadable(STATUS), "not on Linux");
    NativeMemory memory = new NativeMemory();
    // From now on the allocator keeps pieces of this size, rather than map each by itself.
    try (NativeMemory.Region region = memory.region()) {
      region.allocate("test", 2 * PIECE);
    }
    long before = anonymous();
    List<NativeMemory.Region> regions = new ArrayList<>();
    for (int i = 0; i < PIECES; i++) {
      NativeMemory.Region region = memory.region();
      region.allocate("test", PIECE).fill((byte) 1);
      regions.add(region);
    }
    // The last one stays, so that the place below it is not at the end, which is given back anyway.
    try (NativeMemory.Region last = regions.removeLast()) {
      regions.forEach(NativeMemory.Region::close);
      assertThat(memory.live()).isEqualTo(last.bytes());
      NativeMemory.trim();
      assertThat(anonymous() - before).isLessThan(PIECES * PIECE / 2);
    }
    assertThat(memory.live()).isZero();
  }

  private static long anonymous() throws IOException {
    for (String line : Files.readAllLines(STATUS)) {
      if (line.startsWith("RssAnon:")) {
        return 1024 * Long.parseLong(line.replaceAll("[^0-9]", ""));
      }
    }
    throw new AssertionError(STATUS + " has no RssAnon");
  }
}
