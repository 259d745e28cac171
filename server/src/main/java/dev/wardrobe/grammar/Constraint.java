package dev.wardrobe.grammar;

import java.util.ArrayList;
import java.util.List;

/** What an answer's text must be. */
public sealed interface Constraint {

  /**
   * A JSON document.
   *
   * @param object whether it is an object, not any value
   * @param compact whether there are no blanks between its parts
   */
  record Json(boolean object, boolean compact) implements Constraint {}

  /**
   * A JSON document that a schema allows.
   *
   * @param closed whether objects have no other properties than those that are named, where the
   *     schema does not say
   * @param compact whether there are no blanks between its parts
   */
  record Schema(String text, boolean closed, boolean compact) implements Constraint {}

  /** A text that matches as a whole. */
  record Pattern(String regex) implements Constraint {}

  /** One of these texts. */
  record Choice(List<String> texts) implements Constraint {
    static final int LONGEST = 1 << 18;

    public Choice {
      texts = List.copyOf(texts);
    }
  }

  /** Bytes of memory that it takes itself, at most about. */
  default long bytes() {
    return 100
        + switch (this) {
          case Json json -> 0;
          case Schema schema -> 2L * schema.text().length();
          case Pattern pattern -> 2L * pattern.regex().length();
          case Choice choice ->
              choice.texts().stream().mapToLong(text -> 60 + 2L * text.length()).sum();
        };
  }

  /** Adds rules, and returns the one to begin with. */
  private static int rule(Constraint constraint, Rules rules) throws GrammarException {
    return switch (constraint) {
      case Json json -> {
        JsonText text = new JsonText(rules, json.compact());
        yield json.object() ? text.objectRule() : text.valueRule();
      }
      case Schema schema ->
          JsonSchema.compile(schema.text(), new JsonText(rules, schema.compact()), schema.closed());
      case Pattern pattern ->
          rules.add(new Expr.Language(Regex.whole(pattern.regex(), Spelling.PLAIN, rules.budget)));
      case Choice choice -> {
        long length = 0;
        List<Expr> options = new ArrayList<>();
        for (String text : choice.texts()) {
          length += text.length();
          options.add(Expr.text(text));
        }
        if (length > Choice.LONGEST || options.isEmpty()) {
          throw new GrammarException(
              "expected one or more texts of at most %d characters together, got %d of %d"
                  .formatted(Choice.LONGEST, options.size(), length));
        }
        yield rules.add(new Expr.Choice(options));
      }
    };
  }

  /** Compiles a constraint for a vocabulary. */
  static Grammar compile(
      Constraint constraint, TokenTable tokens, long mostBytes, Lanes lanes, Budget budget)
      throws GrammarException {
    Rules rules = new Rules(budget);
    int root = rule(constraint, rules);
    return new Grammar(rules, root, tokens, mostBytes, lanes);
  }
}
