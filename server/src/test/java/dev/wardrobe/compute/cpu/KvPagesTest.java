package dev.wardrobe.compute.cpu;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.wardrobe.compute.KvShape;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** Where blocks lie, and when their memory is there. */
final class KvPagesTest {
  private static final Path STATUS = Path.of("/proc/self/status");

  @ParameterizedTest
  @EnumSource(KvShape.Type.class)
  void block_isOneStretch(KvShape.Type type) {
    KvShape shape = new KvShape(3, 2, 5, 4, type);
    NativeMemory memory = new NativeMemory();
    try (KvPages pages = new KvPages(shape, memory.region())) {
      assertThat(shape.blockBytes()).isEqualTo(4096);
      assertThat(pages.data().byteSize()).isEqualTo(4 * 4096).isEqualTo(memory.live());
      int head = 2 * 5 * 16;
      for (int block = 0; block < 4; block++) {
        for (int i = 0; i < 6; i++) {
          long keys = pages.keys(i / 2, block, i % 2);
          assertThat(keys).isEqualTo(block * 4096L / type.bytes() + (long) i * head);
          assertThat(pages.values(i / 2, block, i % 2)).isEqualTo(keys + head / 2);
        }
      }
    }
    assertThat(memory.live()).isZero();
  }

  @Test
  void decommit_thenCommit_isZeroAndCounted() {
    KvShape shape = new KvShape(3, 2, 64, 4, KvShape.Type.BF16);
    NativeMemory memory = new NativeMemory();
    try (KvPages pages = new KvPages(shape, memory.region())) {
      long bytes = shape.blockBytes();
      MemorySegment second = pages.data().asSlice(bytes, bytes);
      pages.data().fill((byte) 7);
      pages.decommit(1);
      boolean given = memory.live() == 3 * bytes;
      pages.commit(1);
      assertThat(memory.live()).isEqualTo(4 * bytes);
      assertThat(second.mismatch(MemorySegment.ofArray(new byte[(int) bytes]))).isEqualTo(-1);
      byte[] sevens = new byte[(int) bytes];
      Arrays.fill(sevens, (byte) 7);
      for (int block : new int[] {0, 2, 3}) {
        assertThat(
                pages.data().asSlice(block * bytes, bytes).mismatch(MemorySegment.ofArray(sevens)))
            .isEqualTo(-1);
      }
      assertThat(given).isEqualTo(System.getProperty("os.name").equals("Linux"));
      pages.decommit(3);
    }
    assertThat(memory.live()).isZero();
  }

  @Test
  void memory_isTakenAsItIsWrittenAndGivenBack() throws IOException {
    assumeTrue(Files.isReadable(STATUS), "not on Linux");
    KvShape shape = new KvShape(16, 8, 128, 256, KvShape.Type.F32);
    assertThat(shape.bytes()).isEqualTo(1L << 29);
    NativeMemory memory = new NativeMemory();
    try (KvPages pages = new KvPages(shape, memory.region())) {
      long before = resident();
      long bytes = shape.blockBytes();
      for (int block = 0; block < 64; block++) {
        pages.data().asSlice(block * bytes, bytes).fill((byte) 1);
      }
      assertThat(resident() - before).isBetween(100L << 20, 200L << 20);
      for (int block = 0; block < 64; block++) {
        pages.decommit(block);
      }
      assertThat(resident() - before).isLessThan(50L << 20);
    }
  }

  private static long resident() throws IOException {
    for (String line : Files.readAllLines(STATUS)) {
      if (line.startsWith("RssAnon:")) {
        return 1024 * Long.parseLong(line.replaceAll("[^0-9]", ""));
      }
    }
    throw new AssertionError(STATUS + " has no RssAnon");
  }
}
