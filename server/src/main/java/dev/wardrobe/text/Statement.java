package dev.wardrobe.text;

import java.util.List;
import org.jspecify.annotations.Nullable;

/** A part of a template that does something: writes text, binds names, repeats, chooses. */
sealed interface Statement {

  record Text(String text) implements Statement {}

  record Print(Expression value, int line) implements Statement {}

  record Assign(Target target, Expression value, int line) implements Statement {}

  record AssignBlock(
      Target target, Expression.@Nullable Filter filter, List<Statement> body, int line)
      implements Statement {}

  record For(
      Target target,
      Expression iterable,
      @Nullable Expression test,
      boolean recursive,
      List<Statement> body,
      List<Statement> otherwise,
      int line)
      implements Statement {}

  record If(
      List<Expression> tests, List<List<Statement>> bodies, List<Statement> otherwise, int line)
      implements Statement {}

  record With(List<Target> targets, List<Expression> values, List<Statement> body, int line)
      implements Statement {}

  record MacroDefinition(Signature signature, List<Statement> body, int line)
      implements Statement {}

  record CallBlock(Signature caller, Expression.Call call, List<Statement> body, int line)
      implements Statement {}

  record FilterBlock(Expression.Filter filter, List<Statement> body, int line)
      implements Statement {}

  /** Marks what an assistant wrote, for a trainer's loss mask. */
  record Generation(List<Statement> body, int line) implements Statement {}

  record Break() implements Statement {}

  record Continue() implements Statement {}

  /** What a value can be bound to. */
  sealed interface Target {

    record Variable(String name) implements Target {}

    record NamespaceAttribute(String namespace, String attribute) implements Target {}

    record Several(List<Target> targets) implements Target {}
  }

  /**
   * The parameters of a macro.
   *
   * @param defaults belong to the last parameters
   * @param usesCaller whether the body speaks of {@code caller}; likewise the other two
   */
  record Signature(
      String name,
      List<String> parameters,
      List<Expression> defaults,
      boolean usesCaller,
      boolean usesVarargs,
      boolean usesKwargs) {}
}
