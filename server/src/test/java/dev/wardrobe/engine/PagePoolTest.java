package dev.wardrobe.engine;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.wardrobe.compute.KvShape;
import dev.wardrobe.compute.MathMode;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

final class PagePoolTest {
  private static final int BLOCK = KvShape.BLOCK_TOKENS;

  private static Identity identity(int number) {
    return new Identity(
        KvShape.Type.F32, MathMode.EXACT, new String[] {"sha256:" + number}, new float[] {1});
  }

  @Test
  void take_untilNone_giveBack() {
    PagePool pool = new PagePool(new Pages(3));
    Set<Integer> taken = new HashSet<>();
    for (int i = 0; i < 3; i++) {
      taken.add(pool.take());
    }
    assertThat(taken).containsExactlyInAnyOrder(0, 1, 2);
    assertThat(pool.take()).isEqualTo(PagePool.NONE);

    pool.give(new int[] {2, 0, 9}, 2);
    assertThat(pool.available()).isEqualTo(2);
    assertThat(List.of(pool.take(), pool.take())).containsExactlyInAnyOrder(0, 2);
  }

  @Test
  void give_twice_isRefused() {
    PagePool pool = new PagePool(new Pages(2));
    int block = pool.take();
    pool.give(new int[] {block}, 1);
    assertThatThrownBy(() -> pool.give(new int[] {block}, 1))
        .isInstanceOf(IllegalStateException.class);
    assertThatThrownBy(() -> pool.share(block)).isInstanceOf(IllegalStateException.class);
    assertThat(pool.available()).isEqualTo(2);
  }

  @Test
  void give_shared_staysWithTheOther() {
    PagePool pool = new PagePool(new Pages(2));
    int block = pool.take();
    pool.share(block);
    pool.give(block);
    assertThat(pool.available()).isEqualTo(1);
    pool.give(block);
    assertThat(pool.available()).isEqualTo(2);
    assertThat(pool.cached()).isZero();
  }

  @Test
  void give_indexed_staysCached_leastRecentlyUsedGoesFirst() {
    PagePool pool = new PagePool(new Pages(3));
    int[] tokens = new int[BLOCK];
    List<Integer> blocks = new ArrayList<>();
    for (int i = 0; i < 3; i++) {
      int block = pool.take();
      pool.index().add(identity(i), PagePool.NONE, tokens, 0, block);
      blocks.add(block);
    }
    for (int block : blocks) {
      pool.give(block);
    }
    assertThat(pool.cached()).isEqualTo(3);
    assertThat(pool.available()).isEqualTo(3);
    pool.share(blocks.getFirst());
    pool.give(blocks.getFirst());

    assertThat(List.of(pool.take(), pool.take(), pool.take()))
        .containsExactly(blocks.get(1), blocks.get(2), blocks.get(0));
    assertThat(pool.evictions()).isEqualTo(3);
    assertThat(pool.index().size()).isZero();
  }

  @Test
  void give_prefix_itsEndGoesFirst() {
    PagePool pool = new PagePool(new Pages(4));
    int[] tokens = new int[3 * BLOCK];
    int[] blocks = {pool.take(), pool.take(), pool.take(), pool.take()};
    int parent = PagePool.NONE;
    for (int i = 0; i < 3; i++) {
      pool.index().add(identity(0), parent, tokens, i * BLOCK, blocks[i]);
      parent = blocks[i];
    }
    pool.give(blocks, 4);
    assertThat(pool.cached()).isEqualTo(3);
    assertThat(List.of(pool.take(), pool.take(), pool.take(), pool.take()))
        .containsExactly(blocks[3], blocks[2], blocks[1], blocks[0]);
  }

  @Test
  void lend_freeThenCached_orNothing() {
    Pages pages = new Pages(4);
    PagePool pool = new PagePool(pages);
    int used = pool.take();
    int cached = pool.take();
    pool.index().add(identity(0), PagePool.NONE, new int[BLOCK], 0, cached);
    pool.give(cached);

    assertThat(pool.lend(4)).isFalse();
    assertThat(pages.absent.cardinality()).isZero();
    assertThat(pool.cached()).isEqualTo(1);

    assertThat(pool.lend(2)).isTrue();
    assertThat(pool.cached()).isEqualTo(1);
    assertThat(pool.lend(1)).isTrue();
    assertThat(pool.index().size()).isZero();
    assertThat(pool.available()).isZero();
    assertThat(pool.lent()).isEqualTo(3);
    assertThat(pool.take()).isEqualTo(PagePool.NONE);
    assertThat(pages.absent.get(used)).isFalse();
    assertThatThrownBy(() -> pool.reclaim(4)).isInstanceOf(IllegalStateException.class);

    pool.reclaim(3);
    assertThat(pages.absent.cardinality()).isZero();
    assertThat(pool.available()).isEqualTo(3);
  }

  @Test
  void lend_whatWasNeverUsed_andAgainWhatWasLent() {
    Pages pages = new Pages(8);
    PagePool pool = new PagePool(pages);
    int[] used = {pool.take(), pool.take(), pool.take()};
    pool.give(used, 3);
    assertThat(pool.lend(4)).isTrue();
    BitSet lent = (BitSet) pages.absent.clone();
    for (int block : used) {
      assertThat(lent.get(block)).isFalse();
    }
    pool.reclaim(2);
    // Memory that is there is used again before any is fetched.
    assertThat(List.of(pool.take(), pool.take(), pool.take()))
        .containsExactlyInAnyOrder(used[0], used[1], used[2]);
    assertThat(pool.lend(2)).isTrue();
    assertThat(pages.absent).isEqualTo(lent);
  }

  /**
   * Sequences with prefixes in common, which come, grow and go, and lenders, against sets. With a
   * mask of 0 all hashes are equal.
   */
  @ParameterizedTest
  @CsvSource({"1, -1", "2, -1", "3, 0", "4, 0", "5, 3"})
  void random_noBlockLostNoneGivenTwice(long seed, long hashMask) {
    Random random = new Random(seed);
    int blocks = 1 + random.nextInt(40);
    Pages pages = new Pages(blocks);
    PagePool pool = new PagePool(pages, new PrefixIndex(blocks, hashMask));
    Map<Integer, List<Object>> known = new HashMap<>(); // block -> identity and tokens from 0 on
    LinkedHashSet<Integer> cached = new LinkedHashSet<>();
    List<Holder> holders = new ArrayList<>();
    int lent = 0;
    long evictions = 0;
    long hits = 0;
    for (int round = 0; round < 20_000; round++) {
      switch (random.nextInt(8)) {
        case 0, 1 -> {
          // Comes, and takes what is known of its prefix.
          Holder holder = new Holder(random);
          while (holder.count < Holder.BLOCKS) {
            int parent = holder.count == 0 ? PagePool.NONE : holder.blocks[holder.count - 1];
            int found =
                pool.index().find(holder.identity, parent, holder.tokens, holder.count * BLOCK);
            List<Object> key = holder.key(holder.count + 1);
            assertThat(found == PagePool.NONE ? null : known.get(found))
                .as("seed %d", seed)
                .isEqualTo(known.containsValue(key) ? key : null);
            if (found == PagePool.NONE) {
              break;
            }
            pool.share(found);
            cached.remove(found);
            holder.blocks[holder.count++] = found;
            hits++;
          }
          holder.complete = holder.count;
          holders.add(holder);
        }
        case 2, 3, 4 -> {
          // Grows, and lets others know, as long as nobody was faster.
          if (!holders.isEmpty()) {
            Holder holder = holders.get(random.nextInt(holders.size()));
            if (holder.count == Holder.BLOCKS) {
              continue;
            }
            int block = pool.take();
            if (block == PagePool.NONE) {
              assertThat(pool.available()).isZero();
              continue;
            }
            if (known.remove(block) != null) {
              assertThat(cached.removeFirst()).as("seed %d", seed).isEqualTo(block);
              evictions++;
            }
            holder.blocks[holder.count++] = block;
            while (random.nextInt(3) != 0 && holder.complete < holder.count) {
              int i = holder.complete;
              int parent = i == 0 ? PagePool.NONE : holder.blocks[i - 1];
              int found = pool.index().find(holder.identity, parent, holder.tokens, i * BLOCK);
              if (found == PagePool.NONE) {
                assertThat(known).doesNotContainValue(holder.key(i + 1));
                pool.index()
                    .add(holder.identity, parent, holder.tokens, i * BLOCK, holder.blocks[i]);
                known.put(holder.blocks[i], holder.key(i + 1));
              } else {
                pool.share(found);
                cached.remove(found);
                pool.give(holder.blocks[i]);
                holder.blocks[i] = found;
              }
              holder.complete++;
            }
          }
        }
        case 5, 6 -> {
          if (!holders.isEmpty()) {
            Holder holder = holders.remove(random.nextInt(holders.size()));
            pool.give(holder.blocks, holder.count);
            for (int i = holder.count - 1; i >= 0; i--) {
              int block = holder.blocks[i];
              if (known.containsKey(block) && holders.stream().noneMatch(h -> h.holds(block))) {
                cached.addLast(block);
              }
            }
          }
        }
        default -> {
          int count = random.nextInt(1 + blocks / 4);
          if (random.nextBoolean()) {
            count = Math.min(count, lent);
            pool.reclaim(count);
            lent -= count;
          } else {
            int free = pool.available() - pool.cached();
            boolean done = pool.lend(count);
            assertThat(done).isEqualTo(count <= free + cached.size());
            for (int i = free; done && i < count; i++) {
              known.remove(cached.removeFirst());
              evictions++;
            }
            lent += done ? count : 0;
          }
        }
      }
      Set<Integer> used = new HashSet<>();
      holders.forEach(h -> h.addTo(used));
      assertThat(pool.cached()).as("seed %d", seed).isEqualTo(cached.size());
      assertThat(pool.lent()).isEqualTo(lent).isEqualTo(pages.absent.cardinality());
      assertThat(pool.available() + used.size() + lent).as("seed %d", seed).isEqualTo(blocks);
      assertThat(used).noneMatch(pages.absent::get).noneMatch(cached::contains);
      assertThat(pool.index().size()).isEqualTo(known.size());
      assertThat(pool.evictions()).isEqualTo(evictions);
    }
    assertThat(hits).isGreaterThan(100);
    holders.forEach(h -> pool.give(h.blocks, h.count));
    pool.reclaim(lent);
    Set<Integer> all = new HashSet<>();
    for (int i = 0; i < blocks; i++) {
      all.add(pool.take());
    }
    assertThat(all).hasSize(blocks).doesNotContain(PagePool.NONE);
    assertThat(pool.take()).isEqualTo(PagePool.NONE);
    assertThat(pool.index().size()).isZero();
  }

  /** A sequence's share in the pool. */
  private static final class Holder {
    static final int BLOCKS = 4;

    final Identity identity;
    final int[] tokens = new int[BLOCKS * BLOCK];
    final int[] blocks = new int[BLOCKS];
    int count;
    int complete;

    Holder(Random random) {
      identity = identity(random.nextInt(2));
      for (int i = 0; i < BLOCKS; i++) {
        // One of two tokens in a block, at one of two places: much in common.
        tokens[i * BLOCK + random.nextInt(2) * 15] = random.nextInt(2);
      }
    }

    List<Object> key(int count) {
      List<Object> key = new ArrayList<>(List.of(identity));
      for (int i = 0; i < count * BLOCK; i++) {
        key.add(tokens[i]);
      }
      return key;
    }

    boolean holds(int block) {
      for (int i = 0; i < count; i++) {
        if (blocks[i] == block) {
          return true;
        }
      }
      return false;
    }

    void addTo(Set<Integer> used) {
      for (int i = 0; i < count; i++) {
        used.add(blocks[i]);
      }
    }
  }
}
