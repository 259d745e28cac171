package dev.wardrobe.adapter;

import static dev.wardrobe.adapter.AdapterStoreTest.names;
import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.annotation.JsonProperty;
import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.File;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashSet;
import java.util.Random;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import org.jspecify.annotations.NullMarked;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.slf4j.LoggerFactory;

/** kill -9 while a store changes, at thirty moments. */
final class StoreKillTest {
  private static final int KILLS = 30;

  @TempDir private Path temp;

  private static String classPath() {
    Set<String> places = new LinkedHashSet<>();
    for (Class<?> type :
        new Class<?>[] {
          StoreChurn.class,
          AdapterStore.class,
          ObjectMapper.class,
          JsonFactory.class,
          JsonProperty.class,
          LoggerFactory.class,
          NullMarked.class,
          Test.class,
          org.assertj.core.api.Assertions.class
        }) {
      places.add(Path.of(type.getProtectionDomain().getCodeSource().getLocation().getPath()) + "");
    }
    return String.join(File.pathSeparator, places);
  }

  @Test
  @Timeout(120)
  void kill_atAnyMoment_leavesTheOldOrTheNewState() throws Exception {
    long seed = Long.getLong("wardrobe.test.seed", System.nanoTime());
    Random random = new Random(seed);
    Catalog before = Catalog.EMPTY;
    int next = 0;
    int changed = 0;
    for (int kill = 0; kill < KILLS; kill++) {
      int last = churnAndKill(seed, next, random);
      for (; next <= last; next++) {
        Catalog after = StoreChurn.next(before, seed, next);
        changed += after.equals(before) ? 0 : 1;
        before = after;
      }
      Catalog after = StoreChurn.next(before, seed, next);
      String moment = "seed %d, kill %d, after change %d".formatted(seed, kill, last);
      try (AdapterStore store = AdapterStoreTest.open(store())) {
        assertThat(store.catalog()).as(moment).isIn(before, after);
        AdapterStore.Verified verified = store.verify();
        assertThat(verified.faults()).as(moment).isEmpty();
        assertThat(verified.unreferred()).as(moment).isZero();
        assertThat(names(store().resolve(".staging"))).as(moment).isEmpty();
        if (!store.catalog().equals(before)) {
          before = after;
          next++;
        }
      }
    }
    assertThat(changed).as("seed %d", seed).isGreaterThan(KILLS / 5);
  }

  @Test
  @Timeout(120)
  void open_byAnotherProcess_isRefusedAsLongAsItIsOpen() throws Exception {
    Path errors = temp.resolve("errors");
    try (AdapterStore store = AdapterStoreTest.open(store())) {
      AdapterStoreTest.refuses(
          AdapterException.Reason.IN_USE, () -> AdapterStoreTest.open(store()), "another process");
      Process process = start(1, 0, errors);
      assertThat(process.waitFor()).isEqualTo(1);
      assertThat(errors).content().contains("another process writes to it");
      assertThat(store.catalog()).isEqualTo(Catalog.EMPTY);
    }
    Process process = start(1, 0, errors);
    try (BufferedReader lines = process.inputReader(StandardCharsets.US_ASCII)) {
      assertThat(lines.readLine()).isEqualTo("0");
      AdapterStoreTest.refuses(
          AdapterException.Reason.IN_USE, () -> AdapterStoreTest.open(store()), "another process");
    } finally {
      process.destroyForcibly().waitFor();
    }
    AdapterStoreTest.open(store()).close();
  }

  private Path store() {
    return temp.resolve("store");
  }

  private Process start(long seed, int from, Path errors) throws IOException {
    return new ProcessBuilder(
            Path.of(System.getProperty("java.home"), "bin", "java") + "",
            "-Xshare:auto",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-cp",
            classPath(),
            StoreChurn.class.getName(),
            store() + "",
            seed + "",
            from + "")
        .redirectError(errors.toFile())
        .start();
  }

  /** The number of the last change that the process said it had made. */
  private int churnAndKill(long seed, int from, Random random)
      throws IOException, InterruptedException {
    Path errors = temp.resolve("errors");
    Process process = start(seed, from, errors);
    int last = from - 1;
    try (BufferedReader lines = process.inputReader(StandardCharsets.US_ASCII)) {
      // Now and then before the first change, as the store is opened.
      if (random.nextInt(6) > 0) {
        String first = lines.readLine();
        assertThat(first).as("seed %d: the process made no change", seed).isNotNull();
        last = Integer.parseInt(first);
        TimeUnit.MICROSECONDS.sleep(random.nextInt(150_000));
      } else {
        TimeUnit.MILLISECONDS.sleep(random.nextInt(500));
      }
      process.toHandle().destroyForcibly(); // Leaves the stream open.
      for (String line = lines.readLine(); line != null; line = lines.readLine()) {
        last = Integer.parseInt(line);
      }
      process.waitFor();
      assertThat(process.exitValue())
          .as("seed %d: killed, not ended: %s", seed, Files.readString(errors))
          .isEqualTo(128 + 9);
    } finally {
      process.destroyForcibly();
    }
    return last;
  }
}
