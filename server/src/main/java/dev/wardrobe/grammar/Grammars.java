package dev.wardrobe.grammar;

import com.github.benmanes.caffeine.cache.AsyncCache;
import com.github.benmanes.caffeine.cache.Caffeine;
import dev.wardrobe.text.TextException;
import dev.wardrobe.text.TokenBytes;
import java.util.Objects;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import org.jspecify.annotations.Nullable;

/**
 * Compiled constraints of one vocabulary: each is compiled once however many ask, and kept as long
 * as there is room.
 *
 * <p>Compiling, and masks that take long, have a thread of their own, so that no constraint can
 * keep requests without one waiting.
 */
public final class Grammars implements AutoCloseable {
  /** What compiling came to; failures are kept too, so that they cost no more a second time. */
  private record Compiled(@Nullable Grammar grammar, @Nullable Exception failure) {
    long bytes() {
      return grammar == null ? 1_000 : grammar.bytes();
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

  private final Source source;
  private final int vocabulary;
  private final long mostBytes;
  private final ExecutorService executor =
      Executors.newSingleThreadExecutor(
          Thread.ofPlatform().daemon().name("wardrobe-grammar").factory());
  private final AsyncCache<Constraint, Compiled> known;
  private @Nullable TokenTable tokens;

  /**
   * Makes an empty one.
   *
   * @param vocabulary the model's; the tokenizer may have fewer tokens
   * @param mostBytes memory for all grammars and their masks, about
   */
  public Grammars(Source source, int vocabulary, long mostBytes) {
    this.source = source;
    this.vocabulary = vocabulary;
    this.mostBytes = mostBytes;
    // A grammar grows as it is used: each may have a quarter, so that is what one weighs at most.
    known =
        Caffeine.newBuilder()
            .maximumWeight(mostBytes)
            .weigher(Grammars::weight)
            .executor(executor)
            .buildAsync();
  }

  /**
   * The grammar of a constraint, with its first mask. Fails with a {@link GrammarException} if it
   * cannot be compiled, with a {@link TextException} if the bytes of the vocabulary's tokens cannot
   * be told.
   */
  public CompletableFuture<Grammar> get(Constraint constraint) {
    return known
        .get(constraint, (Constraint key) -> compile(key))
        .thenCompose(
            compiled -> {
              // Weighs it anew.
              known.synchronous().asMap().replace(constraint, compiled, compiled);
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

  private Compiled compile(Constraint constraint) {
    try {
      TokenTable table = tokens;
      if (table == null) {
        table = new TokenTable(source.read(), vocabulary);
        tokens = table;
      }
      Grammar grammar = Constraint.compile(constraint, table, mostBytes / 4, executor);
      grammar.prepare();
      return new Compiled(grammar, null);
    } catch (GrammarException | TextException e) {
      return new Compiled(null, e);
    } catch (StackOverflowError e) {
      return new Compiled(null, new GrammarException("it nests too deep", e));
    }
  }

  @Override
  public void close() {
    executor.shutdownNow();
  }
}
