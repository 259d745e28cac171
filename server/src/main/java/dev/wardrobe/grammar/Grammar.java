package dev.wardrobe.grammar;

import java.util.Arrays;
import java.util.BitSet;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The texts that an answer may be, and for each beginning of one, the tokens that may come next:
 * all those, and only those, with which it is still the beginning of such a text.
 *
 * <p>Masks are made once for each state of the {@link Machine}, and shared by all sequences. May be
 * used from several threads.
 */
public final class Grammar {
  private static final Logger LOG = LoggerFactory.getLogger(Grammar.class);

  /** What the engine's thread does by itself: some 100 µs. */
  private static final long SMALL = 40_000;

  /** A single step from a state of more positions than this takes the engine's thread too long. */
  private static final int WIDE = 64;

  /** Most masks that the engine's thread leaves to others unseen, after one that it gave up. */
  private static final int LEFT = 16;

  /** What others' masks may have to wait for: some 10 ms. */
  private static final long LITTLE = 4_000_000;

  /** What one mask may take: a second. */
  private static final long MOST = 300_000_000;

  private final Machine machine;
  private final TokenTable tokens;
  private final Lanes lanes;

  // Threads may race for these two: it matters to nothing but who makes a mask.

  /** How many masks to leave to others, the next time that one is given up. */
  private int leave = 1;

  /** Masks that are left to others before the next one is tried. */
  private int left;

  /** The tokens at the very start, where some have other bytes than elsewhere. */
  private volatile long @Nullable [] firstMask;

  Grammar(Rules rules, int root, TokenTable tokens, long mostBytes, Lanes lanes)
      throws GrammarException {
    this.tokens = tokens;
    this.lanes = lanes;
    machine = new Machine(rules, root, tokens.alphabet, mostBytes);
    if (machine.first().isLast()) {
      throw new GrammarException("no text but the empty one is allowed by it");
    }
  }

  /**
   * Begins a text.
   *
   * @param ends tokens that end it: they are allowed where it is whole, and only there
   * @param stops tokens that end it, too; those that are text are allowed wherever that is
   */
  public Cursor cursor(int[] ends, int[] stops) {
    return cursor(
        IntStream.concat(
                Arrays.stream(ends),
                Arrays.stream(stops).filter(token -> tokens.bytes(token) == null))
            .toArray());
  }

  /** Begins a text that these tokens end. */
  Cursor cursor(int[] ends) {
    return new Cursor(this, ends);
  }

  /** Makes the first mask, if it does not take long; true if it is there. */
  boolean prepareQuickly() {
    return mask(machine.first(), true, new Walk(LITTLE)) != null;
  }

  /** Makes the first mask. */
  void prepare() {
    make(machine.first(), true);
  }

  /** Bytes of memory that it keeps, about. */
  long bytes() {
    return machine.bytes();
  }

  TokenTable tokens() {
    return tokens;
  }

  Frames first() {
    return machine.first();
  }

  /** How much a thread is ready to do for a mask. */
  private static final class Walk {
    final long most;
    final Machine.Effort effort = new Machine.Effort();
    long visits;

    Walk(long most) {
      this.most = most;
    }

    /** A step that was not known takes about as long as 60 that were. */
    boolean tired() {
      return visits + 60 * effort.taken > most;
    }
  }

  /** The tokens that may come next, if that is known. */
  long @Nullable [] knownMask(Frames state, boolean first) {
    return first && tokens.changing.length > 0 ? firstMask : state.mask;
  }

  /** The tokens that may come next, if that can be told in no time; else null. */
  long @Nullable [] quickMask(Frames state, boolean first) {
    if (left > 0) {
      left--;
      return null;
    }
    long[] mask = state.positions.length > WIDE ? null : mask(state, first, new Walk(SMALL));
    if (mask != null) {
      leave = 1;
    } else {
      // What the next states need is much the same.
      left = leave;
      leave = Math.min(LEFT, 2 * leave);
    }
    return mask;
  }

  /** Has a mask made by another thread, which then calls {@code then}. */
  void makeMask(Frames state, boolean first, Runnable then) {
    lanes
        .quick()
        .execute(
            () -> {
              if (madeQuickly(state, first)) {
                then.run();
                return;
              }
              lanes
                  .slow()
                  .execute(
                      () -> {
                        make(state, first);
                        then.run();
                      });
            });
  }

  private boolean madeQuickly(Frames state, boolean first) {
    try {
      return mask(state, first, new Walk(LITTLE)) != null;
    } catch (RuntimeException | StackOverflowError e) {
      LOG.debug("a mask could not be made; the slow lane will tell", e);
      return false;
    }
  }

  /** Makes a mask, or says why there is none. */
  private void make(Frames state, boolean first) {
    try {
      if (mask(state, first, new Walk(MOST)) == null) {
        state.failure =
            "the constraint leaves so much open at once that the tokens that may come next"
                + " cannot be told in reasonable time; have fewer alternatives that begin"
                + " alike";
      }
    } catch (RuntimeException | StackOverflowError e) {
      LOG.error("a mask could not be made", e);
      state.failure = "the tokens that may come next could not be told: " + e;
    }
  }

  private long @Nullable [] mask(Frames state, boolean first, Walk walk) {
    if (first && tokens.changing.length > 0) {
      long[] known = firstMask;
      return known != null ? known : firstMask(state, walk);
    }
    long[] known = state.mask;
    if (known != null) {
      return known;
    }
    Frames clamped = machine.clamped(state, tokens.longest);
    known = clamped.mask;
    if (known == null) {
      known = makeMask(clamped, walk);
      if (known == null) {
        return null;
      }
      clamped.mask = known;
      machine.count(16 + 8L * known.length);
    }
    state.mask = known;
    return known;
  }

  private long @Nullable [] firstMask(Frames state, Walk walk) {
    long[] usual = mask(state, false, walk);
    if (usual == null) {
      return null;
    }
    long[] mask = usual.clone();
    for (int token : tokens.changing) {
      if (token >= tokens.vocabulary) {
        continue;
      }
      byte[] bytes = tokens.first(token);
      if (bytes != null && after(state, bytes, walk.effort) != Frames.DEAD) {
        TokenTable.set(mask, token);
      } else {
        TokenTable.clear(mask, token);
      }
    }
    firstMask = mask;
    return mask;
  }

  /** The state after these bytes, or {@link Frames#DEAD}. */
  Frames after(Frames state, byte[] bytes) {
    return after(machine.renewed(state), bytes, new Machine.Effort());
  }

  private Frames after(Frames state, byte[] bytes, Machine.Effort effort) {
    Frames at = state;
    for (int i = 0; i < bytes.length && at != Frames.DEAD; i++) {
      at = machine.next(at, bytes[i] & 0xff, effort);
    }
    return at;
  }

  private long @Nullable [] makeMask(Frames state, Walk walk) {
    long[] mask = new long[tokens.words()];
    if (state.isLast()) {
      return mask;
    }
    int characters = 0;
    Frames at = state;
    while (characters < tokens.mostCharacters) {
      Frames next = plain(at, walk);
      if (walk.tired()) {
        return null;
      }
      if (next == Frames.DEAD) {
        break;
      }
      characters = next == at ? tokens.mostCharacters : characters + 1;
      at = next;
    }
    if (characters > 0) {
      tokens.addPlain(characters, mask);
    }
    if (characters < tokens.mostCharacters
        && (characters == 0 || readsPlain(at, walk))
        && !walk(tokens.plain, state, mask, walk)) {
      return null;
    }
    return walk(tokens.rest, state, mask, walk) ? mask : null;
  }

  private static final int[] PLAIN_STARTS = starts();

  /** The bytes that a character that needs no escape may begin with. */
  private static int[] starts() {
    BitSet starts = new BitSet();
    starts.set(0x20, 0x80);
    starts.set(0xc2, 0xf5);
    starts.clear('"');
    starts.clear('\\');
    return starts.stream().toArray();
  }

  private boolean readsPlain(Frames state, Walk walk) {
    for (int b : PLAIN_STARTS) {
      if (machine.next(state, b, walk.effort) != Frames.DEAD) {
        return true;
      }
    }
    return false;
  }

  /**
   * The state after any one character that needs no escape; DEAD if there is none such. Means
   * nothing if the walk got tired.
   */
  private Frames plain(Frames state, Walk walk) {
    Frames known = state.plain;
    if (known != null) {
      return known;
    }
    Frames plain = machine.next(state, ' ', walk.effort);
    for (int b : PLAIN_STARTS) {
      if (plain == Frames.DEAD || walk.tired()) {
        break;
      }
      Frames next = machine.next(state, b, walk.effort);
      plain = b < 0x80 ? same(plain, next) : tail(b, next, plain, walk);
    }
    if (!walk.tired()) {
      state.plain = plain;
    }
    return plain;
  }

  private static Frames same(Frames one, Frames other) {
    return one == other ? one : Frames.DEAD;
  }

  /** {@code plain} if it is reached by every character that begins with {@code b}. */
  private Frames tail(int b, Frames state, Frames plain, Walk walk) {
    int low = b == 0xe0 ? 0xa0 : b == 0xf0 ? 0x90 : 0x80;
    int high = b == 0xed ? 0x9f : b == 0xf4 ? 0x8f : 0xbf;
    int more = b < 0xe0 ? 0 : b < 0xf0 ? 1 : 2;
    return tail(low, high, more, state, plain, walk);
  }

  private Frames tail(int low, int high, int more, Frames state, Frames plain, Walk walk) {
    if (state == Frames.DEAD || walk.tired()) {
      return Frames.DEAD;
    }
    Frames before = Frames.DEAD;
    for (int b = low; b <= high; b++) {
      Frames next = machine.next(state, b, walk.effort);
      if (next == Frames.DEAD) {
        return next;
      } else if (next == before) {
        continue;
      }
      before = next;
      Frames end = more == 0 ? next : tail(0x80, 0xbf, more - 1, next, plain, walk);
      if (end != plain) {
        return Frames.DEAD;
      }
    }
    return plain;
  }

  /** Adds a tree's tokens that may come next; false if the walk got tired. */
  private boolean walk(Trie trie, Frames state, long[] mask, Walk walk) {
    Frames[] path = new Frames[trie.deepest + 1];
    path[0] = state;
    int size = trie.size();
    for (int node = 0; node < size; ) {
      int depth = trie.depth[node];
      Frames next = machine.next(path[depth], trie.label[node] & 0xff, walk.effort);
      walk.visits++;
      if (walk.tired()) {
        return false;
      }
      if (next == Frames.DEAD) {
        node = trie.end[node];
        continue;
      }
      for (int i = trie.from[node]; i < trie.from[node + 1]; i++) {
        TokenTable.set(mask, trie.tokens[i]);
      }
      path[depth + 1] = next;
      node++;
    }
    return true;
  }
}
