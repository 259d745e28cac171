package dev.wardrobe.grammar;

import com.github.benmanes.caffeine.cache.AsyncCache;
import com.github.benmanes.caffeine.cache.Caffeine;
import dev.wardrobe.text.TextException;
import dev.wardrobe.text.TokenBytes;
import java.time.Duration;
import java.util.Objects;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.ThreadFactory;
import java.util.concurrent.atomic.AtomicInteger;
import org.jspecify.annotations.Nullable;

/**
 * Compiled constraints of one vocabulary: each is compiled once however many ask, and kept as long
 * as there is room.
 *
 * <p>Compiling, and masks that take long, have threads of their own, so that no constraint can keep
 * requests without one waiting; two, so that those that take long keep none of the others waiting.
 */
public final class Grammars implements AutoCloseable {
  /** What compiling came to; failures are kept too, so that they cost no more a second time. */
  private record Compiled(@Nullable Grammar grammar, @Nullable Exception failure) {
    long bytes() {
      return grammar == null ? 1_000 : grammar.bytes();
    }

    /** Whether it was not even tried. */
    boolean isPutOff() {
      return failure instanceof GrammarException e && e.retryAfter() != null;
    }

    CompletableFuture<Grammar> future() {
      return grammar != null
          ? CompletableFuture.completedFuture(grammar)
          : CompletableFuture.failedFuture(Objects.requireNonNull(failure));
    }
  }

  /** Reads the vocabulary's bytes. */
  public interface Source {
    TokenBytes read() throws TextException;
  }

  /** Constraints that may wait to be compiled at all. */
  private static final int MOST_WAITING = 256;

  /** Constraints that take long and may wait for that. */
  static final int MOST_SLOW = 32;

  /** What one of those may take, about. */
  private static final Duration SLOW = Duration.ofMillis(250);

  private final Source source;
  private final int vocabulary;
  private final long mostBytes;
  private final ExecutorService quick;
  private final ExecutorService slow;
  private final Lanes lanes;
  private final AtomicInteger waiting = new AtomicInteger();
  private final AtomicInteger waitingSlow = new AtomicInteger();
  private final AsyncCache<Constraint, Compiled> known;

  /** Made by the quick lane. */
  private volatile @Nullable TokenTable tokens;

  /**
   * Makes an empty one.
   *
   * @param vocabulary the model's; the tokenizer may have fewer tokens
   * @param mostBytes memory for all grammars and their masks, about
   * @param background makes the thread for what takes long
   */
  public Grammars(Source source, int vocabulary, long mostBytes, ThreadFactory background) {
    this.source = source;
    this.vocabulary = vocabulary;
    this.mostBytes = mostBytes;
    quick =
        Executors.newSingleThreadExecutor(
            Thread.ofPlatform().daemon().name("wardrobe-grammar").factory());
    slow = Executors.newSingleThreadExecutor(background);
    lanes = new Lanes(quick, slow);
    // A grammar grows as it is used: each may have a quarter, so that is what one weighs at most.
    known =
        Caffeine.newBuilder()
            .maximumWeight(mostBytes)
            .weigher(Grammars::weight)
            .executor(Runnable::run)
            .buildAsync();
  }

  /**
   * The grammar of a constraint, with its first mask. Fails with a {@link GrammarException} if it
   * cannot be compiled, with a {@link TextException} if the bytes of the vocabulary's tokens cannot
   * be told.
   */
  public CompletableFuture<Grammar> get(Constraint constraint) {
    return known
        .get(constraint, (key, executor) -> compile(key))
        .thenCompose(
            compiled -> {
              if (compiled.isPutOff()) {
                known.synchronous().asMap().remove(constraint, compiled);
              } else {
                // Weighs it anew.
                known.synchronous().asMap().replace(constraint, compiled, compiled);
              }
              return compiled.future();
            });
  }

  /** A constraint's own text counts: it is kept as long as what came of it. */
  private static int weight(Constraint constraint, Compiled compiled) {
    return (int) Math.min(Integer.MAX_VALUE, constraint.bytes() + compiled.bytes());
  }

  /** Constraints that are kept, compiled or refused. */
  int size() {
    known.synchronous().cleanUp();
    return known.asMap().size();
  }

  private CompletableFuture<Compiled> compile(Constraint constraint) {
    CompletableFuture<Compiled> done = new CompletableFuture<>();
    if (waiting.incrementAndGet() > MOST_WAITING) {
      waiting.decrementAndGet();
      return CompletableFuture.completedFuture(
          putOff("%d constraints are waiting to be compiled".formatted(MOST_WAITING), 1));
    }
    quick.execute(
        () -> {
          waiting.decrementAndGet();
          complete(done, () -> compileQuickly(constraint, done));
        });
    return done;
  }

  /** What compiling is: null if it goes on elsewhere. */
  private interface Work {
    @Nullable Compiled run() throws GrammarException, TextException;
  }

  private static void complete(CompletableFuture<Compiled> done, Work work) {
    try {
      Compiled compiled = work.run();
      if (compiled != null) {
        done.complete(compiled);
      }
    } catch (GrammarException | TextException e) {
      done.complete(new Compiled(null, e));
    } catch (StackOverflowError e) {
      done.complete(new Compiled(null, new GrammarException("it nests too deep", e)));
    } catch (Throwable e) {
      done.completeExceptionally(e);
    }
  }

  private @Nullable Compiled compileQuickly(Constraint constraint, CompletableFuture<Compiled> done)
      throws GrammarException, TextException {
    TokenTable table = tokens;
    if (table == null) {
      table = new TokenTable(source.read(), vocabulary);
      tokens = table;
    }
    Budget budget = new Budget(Budget.LITTLE_WORK);
    try {
      Grammar grammar = Constraint.compile(constraint, table, mostBytes / 4, lanes, budget);
      if (grammar.prepareQuickly()) {
        return new Compiled(grammar, null);
      }
      later(
          done,
          () -> {
            grammar.prepare();
            return new Compiled(grammar, null);
          });
    } catch (GrammarException e) {
      if (!budget.ranOut()) {
        throw e;
      }
      TokenTable same = table;
      later(
          done,
          () -> {
            Grammar grammar =
                Constraint.compile(constraint, same, mostBytes / 4, lanes, new Budget());
            grammar.prepare();
            return new Compiled(grammar, null);
          });
    }
    return null;
  }

  private void later(CompletableFuture<Compiled> done, Work work) {
    int before = waitingSlow.getAndIncrement();
    if (before >= MOST_SLOW) {
      waitingSlow.decrementAndGet();
      done.complete(
          putOff(
              "%d constraints are waiting to be compiled that take as long as this one"
                  .formatted(MOST_SLOW),
              before));
      return;
    }
    slow.execute(
        () -> {
          complete(done, work);
          waitingSlow.decrementAndGet();
        });
  }

  private static Compiled putOff(String why, int before) {
    return new Compiled(
        null, new GrammarException(why + "; try again later", SLOW.multipliedBy(before)));
  }

  @Override
  public void close() {
    quick.shutdownNow();
    slow.shutdownNow();
  }
}
