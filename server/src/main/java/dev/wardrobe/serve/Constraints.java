package dev.wardrobe.serve;

import dev.wardrobe.grammar.Constraint;
import dev.wardrobe.grammar.Grammar;
import dev.wardrobe.grammar.GrammarException;
import dev.wardrobe.grammar.Grammars;
import dev.wardrobe.text.TextException;
import dev.wardrobe.v1.JsonKind;
import java.util.Locale;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;

/** Requests' constraints: what they say, and their errors. */
final class Constraints {
  private static final long LEAST_MEMORY = 32L << 20;
  private static final long MOST_MEMORY = 512L << 20;

  private Constraints() {}

  /** Bytes for all that is compiled. */
  static long memory() {
    return Math.clamp(Runtime.getRuntime().maxMemory() / 8, LEAST_MEMORY, MOST_MEMORY);
  }

  /** The grammar of a constraint; fails with a {@link RequestException}. */
  static CompletableFuture<Grammar> compile(
      dev.wardrobe.v1.Constraint constraint, Grammars grammars) throws RequestException {
    return grammars
        .get(read(constraint))
        .exceptionallyCompose(failure -> CompletableFuture.failedFuture(of(failure, constraint)));
  }

  private static Throwable of(Throwable failure, dev.wardrobe.v1.Constraint constraint) {
    return switch (failure) {
      case CompletionException e when e.getCause() != null -> of(e.getCause(), constraint);
      case GrammarException e when e.retryAfter() != null ->
          new RequestException(
              RequestException.Code.RESOURCE_EXHAUSTED, "constraint: " + e.getMessage(), e);
      case GrammarException e ->
          RequestException.invalid("constraint.%s: %s".formatted(name(constraint), e.getMessage()));
      case TextException e ->
          new RequestException(
              RequestException.Code.FAILED_PRECONDITION, "constraint: " + e.getMessage(), e);
      default -> failure;
    };
  }

  private static String name(dev.wardrobe.v1.Constraint constraint) {
    return constraint.getKindCase().name().toLowerCase(Locale.ROOT);
  }

  private static Constraint read(dev.wardrobe.v1.Constraint constraint) throws RequestException {
    boolean compact = constraint.getCompact();
    boolean schema = constraint.hasJsonSchema();
    if ((compact && !schema && !constraint.hasJson())
        || (constraint.getClosedObjects() && !schema)) {
      throw RequestException.invalid(
          "constraint: compact is for json and json_schema, closed_objects for json_schema; got"
              + " them with "
              + name(constraint));
    }
    return switch (constraint.getKindCase()) {
      case JSON -> {
        JsonKind kind = constraint.getJson();
        if (kind != JsonKind.JSON_KIND_OBJECT && kind != JsonKind.JSON_KIND_VALUE) {
          throw RequestException.invalid(
              "constraint.json: expected JSON_KIND_OBJECT or JSON_KIND_VALUE, got "
                  + constraint.getJsonValue());
        }
        yield new Constraint.Json(kind == JsonKind.JSON_KIND_OBJECT, compact);
      }
      case JSON_SCHEMA ->
          new Constraint.Schema(constraint.getJsonSchema(), constraint.getClosedObjects(), compact);
      case REGEX -> new Constraint.Pattern(constraint.getRegex());
      case CHOICE -> new Constraint.Choice(constraint.getChoice().getTextsList());
      case KIND_NOT_SET ->
          throw RequestException.invalid(
              "constraint: expected one of json, json_schema, regex and choice, got none");
    };
  }
}
