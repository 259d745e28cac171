package dev.wardrobe.adapter;

import static dev.wardrobe.adapter.AdapterStoreTest.TIME;
import static dev.wardrobe.adapter.AdapterStoreTest.add;
import static dev.wardrobe.adapter.AdapterStoreTest.blobs;
import static dev.wardrobe.adapter.AdapterStoreTest.names;
import static dev.wardrobe.adapter.AdapterStoreTest.publish;
import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.io.Serial;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** A store whose file operations fail, or never return, at each place where they can. */
final class StoreFaultTest {
  @TempDir private Path temp;

  /** The end of a process, as those see it who are in the midst of something. */
  private static final class Killed extends Error {
    @Serial private static final long serialVersionUID = 1L;

    Killed() {
      super("killed");
    }
  }

  /** How a disk goes wrong. */
  private enum Fault {
    /** The process ends before the operation. */
    KILLED,
    /** The process ends in the midst of a write, else after the operation. */
    KILLED_HALFWAY,
    /** The operation fails, those after it do not. */
    FAILS_ONCE,
    /** It fails halfway, and whatever needs space fails from then on. */
    FULL
  }

  private static final class FaultyDisk extends AdapterStoreTest.Unforced {
    final Fault fault;
    final int at;
    int operations;
    boolean full;

    FaultyDisk(Fault fault, int at) {
      this.fault = fault;
      this.at = at;
    }

    @FunctionalInterface
    interface Operation {
      void run() throws IOException;
    }

    private void step(boolean needsSpace, Operation half, Operation whole) throws IOException {
      int number = operations++;
      boolean ended = fault == Fault.KILLED || fault == Fault.KILLED_HALFWAY;
      if (number > at && ended) {
        throw new Killed();
      }
      if (number == at) {
        switch (fault) {
          case KILLED -> throw new Killed();
          case KILLED_HALFWAY -> {
            half.run();
            throw new Killed();
          }
          case FAILS_ONCE -> throw new IOException("planted");
          case FULL -> full = true;
        }
      }
      if (full && needsSpace) {
        half.run();
        throw new IOException("No space left on device");
      }
      whole.run();
    }

    @Override
    void createDirectory(Path directory) throws IOException {
      Operation create = () -> super.createDirectory(directory);
      step(true, fault == Fault.FULL ? () -> {} : create, create);
    }

    @Override
    FileChannel create(Path file) throws IOException {
      FileChannel[] channel = new FileChannel[1];
      Operation create = () -> channel[0] = super.create(file);
      step(true, fault == Fault.FULL ? () -> {} : create, create);
      return channel[0];
    }

    @Override
    void write(FileChannel file, ByteBuffer bytes) throws IOException {
      step(
          true,
          () ->
              super.write(file, bytes.duplicate().limit(bytes.position() + bytes.remaining() / 2)),
          () -> super.write(file, bytes));
    }

    @Override
    void force(FileChannel file) throws IOException {
      step(true, () -> {}, () -> super.force(file));
    }

    @Override
    void move(Path from, Path to) throws IOException {
      Operation move = () -> super.move(from, to);
      step(false, move, move);
    }

    @Override
    void delete(Path file) throws IOException {
      Operation delete = () -> super.delete(file);
      step(false, delete, delete);
    }

    @Override
    void forceDirectory(Path directory) throws IOException {
      Operation force = () -> super.forceDirectory(directory);
      step(false, force, force);
    }
  }

  /** One of the things that the story does to a store. */
  @FunctionalInterface
  private interface Act {
    void on(AdapterStore store) throws AdapterException;
  }

  /** Everything that changes files, so that each place of each is met. */
  private static final List<Act> STORY =
      List.of(
          store -> publish(store, "a", "1", 0),
          store -> publish(store, "a", "2", 1),
          store -> publish(store, "b", "1", 0),
          store -> add(store, 9).close(),
          store -> {
            String digest = store.catalog().entry("a").version("1").digest();
            store.update(c -> c.setAlias("a", "prod", Catalog.Target.of(digest), null, TIME));
          },
          store -> {
            try (Upload upload = store.upload(2, 100)) {
              upload.weights(ByteBuffer.allocate(60));
            }
          },
          store -> store.update(c -> c.delete("b")),
          store -> store.update(c -> c.deleteVersion("a", "2")),
          store -> {
            AdapterStore.Hold held = store.hold(store.catalog().entry("a").version("1").digest());
            store.update(c -> c.delete("a"));
            publish(store, "c", "1", 5);
            held.close();
          },
          store -> store.collect(Duration.ZERO),
          store -> publish(store, "a", "1", 0));

  /** What the catalog says at the end of each act, and may say within it, without faults. */
  private static List<Set<String>> states(Path directory) throws AdapterException {
    List<Set<String>> states = new ArrayList<>();
    try (AdapterStore store = AdapterStoreTest.open(directory)) {
      for (Act act : STORY) {
        Set<String> within = new HashSet<>(Set.of(store.catalog().toString()));
        if (states.size() == 8) {
          within.add(store.catalog().delete("a").toString());
        }
        act.on(store);
        within.add(store.catalog().toString());
        states.add(within);
      }
    }
    return states;
  }

  private static void checkWhole(Path directory, AdapterStore store) throws Exception {
    AdapterStore.Verified verified = store.verify();
    assertThat(verified.faults()).isEmpty();
    assertThat(verified.unreferred()).isZero();
    assertThat(names(directory.resolve(".staging"))).isEmpty();
    Set<String> live = new HashSet<>();
    for (String digest : store.catalog().contents().keySet()) {
      live.add(digest.substring(7));
      try (var config = store.files(digest).open(AdapterConfig.FILE);
          var weights = store.files(digest).open(Adapter.WEIGHTS)) {
        live.add(config.expected().substring(7));
        live.add(weights.expected().substring(7));
      }
    }
    assertThat(names(blobs(directory))).containsExactlyInAnyOrderElementsOf(live);
  }

  @Test
  void kill_atAnyOperation_leavesTheOldOrTheNewState() throws Exception {
    List<Set<String>> states = states(temp.resolve("without"));
    for (Fault fault : List.of(Fault.KILLED, Fault.KILLED_HALFWAY)) {
      boolean met = true;
      for (int at = 0; met; at++) {
        Path directory = temp.resolve(fault + "." + at);
        int acts = -1; // As long as the store is not open.
        AdapterStore store = null;
        met = false;
        try {
          store =
              AdapterStore.open(
                  directory, StoreOptions.DEFAULT, new FaultyDisk(fault, at), Runnable::run);
          acts = 0;
          for (Act act : STORY) {
            act.on(store);
            acts++;
          }
        } catch (Killed e) {
          met = true;
        } finally {
          if (store != null) {
            store.close(); // Gives back the lock, as the system would.
          }
        }
        try (AdapterStore again = AdapterStoreTest.open(directory)) {
          Set<String> expected =
              acts < 0
                  ? Set.of(Catalog.EMPTY.toString())
                  : states.get(Math.min(acts, STORY.size() - 1));
          assertThat(again.catalog().toString())
              .as("%s at operation %d, act %d", fault, at, acts)
              .isIn(expected);
          checkWhole(directory, again);
          publish(again, "new", "1", 77);
        }
        assertThat(at).isLessThan(1000);
      }
    }
  }

  @Test
  void fail_atAnyOperation_isOneErrorAndNothingIsLost() throws Exception {
    for (Fault fault : List.of(Fault.FAILS_ONCE, Fault.FULL)) {
      int errors = 0;
      boolean met = true;
      for (int at = 0; met; at++) {
        Path directory = temp.resolve(fault + "." + at);
        FaultyDisk disk = new FaultyDisk(fault, at);
        String before = Catalog.EMPTY.toString();
        try (AdapterStore store =
            AdapterStore.open(directory, StoreOptions.DEFAULT, disk, Runnable::run)) {
          for (Act act : STORY) {
            boolean failed = true;
            try {
              act.on(store);
              failed = false;
            } catch (AdapterException e) {
              assertThat(e.getMessage()).doesNotContain("\n").isNotBlank();
              errors++;
            } catch (NullPointerException e) {
              // An act before failed, and this one's name is not there.
              assertThat(disk.operations).isGreaterThan(at);
            }
            if (!failed) {
              continue;
            }
            try (AdapterStore reader = AdapterStore.openToRead(directory, StoreOptions.DEFAULT)) {
              assertThat(reader.catalog())
                  .as("%s at operation %d", fault, at)
                  .isEqualTo(store.catalog());
              assertThat(reader.verify().faults()).isEmpty();
            }
          }
          before = store.catalog().toString();
        } catch (AdapterException e) {
          errors++;
        }
        met = disk.operations > at;
        try (AdapterStore again = AdapterStoreTest.open(directory)) {
          assertThat(again.catalog().toString())
              .as("%s at operation %d", fault, at)
              .isEqualTo(before);
          assertThat(again.verify().faults()).isEmpty();
          again.collect(Duration.ZERO);
          checkWhole(directory, again);
          publish(again, "new", "1", 77);
        }
        assertThat(at).isLessThan(1000);
      }
      assertThat(errors).isGreaterThan(20);
    }
  }

  /** Whatever is renamed was forced first, and blobs before the index that points to them. */
  @Test
  void order_survivesALossOfPower() throws Exception {
    List<String> moves = new ArrayList<>();
    Map<FileChannel, Path> open = new HashMap<>();
    Set<Path> dirty = new HashSet<>();
    Set<Path> unforced = new HashSet<>();
    Disk watched =
        new Disk() {
          @Override
          FileChannel create(Path file) throws IOException {
            FileChannel channel = super.create(file);
            open.put(channel, file);
            dirty.add(file);
            return channel;
          }

          @Override
          void write(FileChannel file, ByteBuffer bytes) throws IOException {
            dirty.add(open.get(file));
            super.write(file, bytes);
          }

          @Override
          void force(FileChannel file) throws IOException {
            super.force(file);
            dirty.remove(open.get(file));
          }

          @Override
          void move(Path from, Path to) throws IOException {
            assertThat(dirty).doesNotContain(from);
            if (to.endsWith("index.json")) {
              assertThat(unforced).as("directories before the index").isEmpty();
            }
            super.move(from, to);
            unforced.add(to.getParent());
            moves.add(to.getFileName() + "");
          }

          @Override
          void forceDirectory(Path directory) throws IOException {
            super.forceDirectory(directory);
            unforced.remove(directory);
          }
        };
    try (AdapterStore store =
        AdapterStore.open(temp, StoreOptions.DEFAULT, watched, Runnable::run)) {
      assertThat(unforced).isEmpty();
      for (Act act : STORY) {
        act.on(store);
        assertThat(unforced).isEmpty();
      }
    }
    assertThat(moves).hasSizeGreaterThan(20).contains("index.json", "oci-layout");
  }
}
