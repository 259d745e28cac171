package dev.wardrobe.compute.cuda;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.wardrobe.compute.KvShape;
import dev.wardrobe.compute.OutOfMemoryException;
import java.lang.foreign.MemorySegment;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import jcuda.driver.CUresult;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Pages that keys and values, and adapters, take from each other. */
final class PagesTest {
  private static final long PAGE = 2 << 20;

  /** Four blocks a page. */
  private static final int QUARTER_PAGE_LAYERS = 16;

  private Emulator emulator;
  private Gpu gpu;
  private Pages pages;
  private long before;

  @BeforeEach
  void open() throws Exception {
    emulator = Emulator.load();
    emulator.reset();
    emulator.seed(17);
    gpu = Gpu.open();
    pages = gpu.pages();
    before = emulator.liveBytes();
  }

  @AfterEach
  void close() {
    if (gpu == null) {
      // There was no emulator, and the test was skipped.
      return;
    }
    assertThat(gpu.live()).isZero();
    pages.trim();
    assertThat(emulator.liveBytes()).as(emulator::report).isEqualTo(before);
    gpu.close();
    assertThat(emulator.reset()).isZero();
  }

  private static KvShape shape(int layers, int blocks) {
    return new KvShape(layers, 4, 128, blocks, KvShape.Type.BF16);
  }

  private CudaKvCache cache(int layers, int blocks) {
    return new CudaKvCache(shape(layers, blocks), gpu, pages);
  }

  private void fill(long address, long bytes, int value) {
    byte[] values = new byte[(int) bytes];
    Arrays.fill(values, (byte) value);
    gpu.upload(MemorySegment.ofArray(values), address);
  }

  private void expect(long address, long bytes, int value) {
    byte[] expected = new byte[(int) bytes];
    Arrays.fill(expected, (byte) value);
    byte[] values = new byte[(int) bytes];
    gpu.download(address, MemorySegment.ofArray(values));
    assertThat(Arrays.mismatch(values, expected)).isEqualTo(-1);
  }

  @Test
  void page_goesWithItsLastBlockAndComesBackZero() {
    assertThat(pages.pageBytes()).isEqualTo(PAGE);
    try (CudaKvCache cache = cache(QUARTER_PAGE_LAYERS, 10)) {
      long block = cache.shape().blockBytes();
      assertThat(block).isEqualTo(PAGE / 4);
      assertThat(gpu.live()).isEqualTo(10 * block);
      assertThat(emulator.liveBytes()).isEqualTo(before + 3 * PAGE);
      expect(cache.address(), 10 * block, 0);
      fill(cache.address(), 10 * block, 7);
      for (int b : new int[] {4, 6, 7}) {
        cache.decommit(b);
      }
      assertThat(gpu.live()).isEqualTo(7 * block);
      assertThat(pages.spare()).isZero();
      cache.decommit(5);
      assertThat(pages.spare()).isOne();
      // Adapters have what they were lent; taking it needs no other page.
      long created = emulator.count("cuMemCreate");
      try (Gpu.Memory adapter = pages.region("adapter", PAGE)) {
        assertThat(gpu.live()).isEqualTo(6 * block + PAGE);
        fill(adapter.address(), PAGE, 9);
        expect(adapter.address(), PAGE, 9);
      }
      cache.commit(6);
      assertThat(emulator.count("cuMemCreate")).isEqualTo(created);
      assertThat(gpu.live()).isEqualTo(7 * block);
      expect(cache.address(), 4 * block, 7);
      expect(cache.address() + 6 * block, block, 0);
      expect(cache.address() + 8 * block, 2 * block, 7);
      // The others of the page are zero too, each when its turn comes.
      fill(cache.address() + 6 * block, block, 5);
      cache.commit(4);
      expect(cache.address() + 4 * block, block, 0);
      expect(cache.address() + 6 * block, block, 5);
    }
  }

  @Test
  void block_acrossPages() {
    // Of 1.5 pages each: the second page is the first two blocks', the fourth the last two's.
    try (CudaKvCache cache = cache(6 * QUARTER_PAGE_LAYERS, 4)) {
      long block = cache.shape().blockBytes();
      assertThat(block).isEqualTo(PAGE + PAGE / 2);
      fill(cache.address(), 4 * block, 3);
      cache.decommit(0);
      assertThat(pages.spare()).isOne();
      cache.decommit(1);
      assertThat(pages.spare()).isEqualTo(3);
      cache.commit(1);
      assertThat(pages.spare()).isOne();
      expect(cache.address() + block, block, 0);
      expect(cache.address() + 2 * block, 2 * block, 3);
    }
  }

  @Test
  void decommitted_isOutOfBounds() {
    try (CudaKvCache cache = cache(QUARTER_PAGE_LAYERS, 8)) {
      long block = cache.shape().blockBytes();
      for (int b = 4; b < 8; b++) {
        cache.decommit(b);
      }
      expect(cache.address(), 4 * block, 0);
      assertThatThrownBy(() -> expect(cache.address() + 4 * block, block, 0))
          .isInstanceOf(CudaException.class);
      assertThat(emulator.report()).contains("cuMemcpyDtoH");
    }
  }

  @Test
  void kvCache_thatTheDeviceHasNotRoomFor() {
    emulator.budget(before + 5 * PAGE);
    assertThatThrownBy(() -> cache(QUARTER_PAGE_LAYERS, 23))
        .isInstanceOf(OutOfMemoryException.class)
        .hasMessageContaining("KV cache of 23 blocks: %d bytes asked", 6 * PAGE);
    assertThat(emulator.liveBytes()).isEqualTo(before);
    try (CudaKvCache cache = cache(QUARTER_PAGE_LAYERS, 20)) {
      expect(cache.address(), cache.shape().bytes(), 0);
    }
  }

  /** Whatever call fails, and wherever, nothing is left of what was asked for. */
  @ParameterizedTest
  @CsvSource({
    "cuMemAddressReserve, 1",
    "cuMemCreate, 1",
    "cuMemCreate, 3",
    "cuMemMap, 1",
    "cuMemMap, 4",
    "cuMemSetAccess, 1",
  })
  void outOfMemory_inTheMiddle(String call, int nth) {
    emulator.fail(call, nth, CUresult.CUDA_ERROR_OUT_OF_MEMORY);
    assertThatThrownBy(() -> cache(QUARTER_PAGE_LAYERS, 16))
        .isInstanceOf(OutOfMemoryException.class)
        .hasMessageContaining("KV cache of 16 blocks");
    assertThat(emulator.liveBytes()).isEqualTo(before);
    emulator.fail(call, nth, CUresult.CUDA_ERROR_OUT_OF_MEMORY);
    assertThatThrownBy(() -> pages.region("adapter 'a'", 4 * PAGE))
        .isInstanceOf(OutOfMemoryException.class)
        .hasMessageContaining("adapter 'a'");
    assertThat(emulator.liveBytes()).isEqualTo(before);
    assertThat(gpu.live()).isZero();
    try (Gpu.Memory adapter = pages.region("adapter 'a'", 4 * PAGE)) {
      fill(adapter.address(), 4 * PAGE, 1);
    }
  }

  @Test
  void commit_withoutMemory() {
    emulator.budget(before + 3 * PAGE);
    try (CudaKvCache cache = cache(6 * QUARTER_PAGE_LAYERS, 2)) {
      cache.decommit(0);
      cache.decommit(1);
      long live = gpu.live();
      try (Gpu.Memory adapter = pages.region("adapter", 2 * PAGE)) {
        assertThat(adapter.bytes()).isEqualTo(2 * PAGE);
        assertThatThrownBy(() -> cache.commit(0)).isInstanceOf(OutOfMemoryException.class);
        assertThat(gpu.live()).isEqualTo(live + 2 * PAGE);
        assertThat(pages.spare()).isOne();
      }
      cache.commit(0);
      cache.commit(1);
      expect(cache.address(), 2 * cache.shape().blockBytes(), 0);
    }
  }

  @Test
  void trim_keepsWhatIsOwed() {
    try (CudaKvCache cache = cache(QUARTER_PAGE_LAYERS, 8)) {
      for (int b = 0; b < 8; b++) {
        cache.decommit(b);
      }
      assertThat(pages.spare()).isEqualTo(2);
      assertThat(pages.trim()).isZero();
      try (Gpu.Memory adapter = pages.region("adapter", 3 * PAGE)) {
        assertThat(adapter.bytes()).isEqualTo(3 * PAGE);
      }
      assertThat(pages.trim()).isOne();
      // What is owed is there, whoever else takes memory meanwhile.
      emulator.budget(emulator.liveBytes());
      for (int b = 0; b < 8; b++) {
        cache.commit(b);
      }
    }
  }

  @Test
  void allocate_takesSparePagesBack() {
    emulator.budget(before + 4 * PAGE);
    pages.region("adapter", 4 * PAGE).close();
    assertThat(pages.spare()).isEqualTo(4);
    try (Gpu.Memory buffer = gpu.allocate("buffer", 3 * PAGE)) {
      assertThat(buffer.bytes()).isEqualTo(3 * PAGE);
      assertThat(pages.spare()).isZero();
    }
  }

  @Test
  void region_smallOnesShareAPage() {
    List<Gpu.Memory> small = new ArrayList<>();
    long piece = 100_000;
    for (int i = 0; i < 25; i++) {
      Gpu.Memory region = pages.region("adapter " + i, piece);
      assertThat(region.address() % 256).isZero();
      fill(region.address(), piece, i);
      small.add(region);
    }
    assertThat(gpu.live()).isEqualTo(25 * piece);
    assertThat(emulator.liveBytes()).isEqualTo(before + 2 * PAGE);
    // What is given back is had again, neighbours together.
    long at = small.get(7).address();
    for (int i : new int[] {7, 9, 8}) {
      small.get(i).close();
    }
    Gpu.Memory larger = pages.region("larger", 3 * piece);
    assertThat(larger.address()).isEqualTo(at);
    fill(larger.address(), 3 * piece, 99);
    for (int i = 0; i < 25; i++) {
      if (i < 7 || i > 9) {
        expect(small.get(i).address(), piece, i);
      }
      small.get(i).close();
    }
    expect(larger.address(), 3 * piece, 99);
    assertThat(emulator.liveBytes()).isEqualTo(before + 2 * PAGE);
    assertThat(pages.spare()).isOne();
    larger.close();
    assertThat(pages.spare()).isEqualTo(2);
  }

  @Test
  void region_onManyThreads() throws Exception {
    try (ExecutorService loaders = Executors.newFixedThreadPool(4);
        CudaKvCache cache = cache(QUARTER_PAGE_LAYERS, 16)) {
      List<Future<?>> loads = new ArrayList<>();
      for (int i = 0; i < 16; i++) {
        int seed = i;
        loads.add(
            loaders.submit(
                () -> {
                  Random random = new Random(seed);
                  for (int round = 0; round < 5; round++) {
                    long bytes = 1 + random.nextInt((int) (random.nextBoolean() ? PAGE : 9000));
                    try (Gpu.Memory region = pages.region("adapter", bytes)) {
                      fill(region.address(), bytes, seed);
                      expect(region.address(), bytes, seed);
                    }
                  }
                }));
      }
      for (int round = 0; round < 10; round++) {
        for (int b = 0; b < 16; b++) {
          cache.decommit(b);
        }
        for (int b = 0; b < 16; b++) {
          cache.commit(b);
        }
      }
      for (Future<?> load : loads) {
        load.get();
      }
      expect(cache.address(), cache.shape().bytes(), 0);
    }
  }

  @Test
  void deviceWithoutMapping() {
    Pages plain = new Pages(gpu, false);
    assertThat(plain.pageBytes()).isZero();
    try (CudaKvCache cache = new CudaKvCache(shape(QUARTER_PAGE_LAYERS, 5), gpu, plain);
        Gpu.Memory adapter = plain.region("adapter", 1000)) {
      long block = cache.shape().blockBytes();
      assertThat(gpu.live()).isEqualTo(5 * block + 1000);
      fill(cache.address(), 5 * block, 7);
      cache.decommit(2);
      cache.commit(2);
      expect(cache.address(), 2 * block, 7);
      expect(cache.address() + 2 * block, block, 0);
      expect(cache.address() + 3 * block, 2 * block, 7);
      fill(adapter.address(), 1000, 1);
    }
    emulator.budget(emulator.liveBytes());
    assertThatThrownBy(() -> new CudaKvCache(shape(QUARTER_PAGE_LAYERS, 5), gpu, plain))
        .isInstanceOf(OutOfMemoryException.class)
        .hasMessageContaining("KV cache of 5 blocks");
    plain.close();
  }
}
