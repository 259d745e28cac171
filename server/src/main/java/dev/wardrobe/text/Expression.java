package dev.wardrobe.text;

import java.util.List;
import org.jspecify.annotations.Nullable;

/** A part of a template that has a value. */
sealed interface Expression {

  record Constant(Object value) implements Expression {}

  record Name(String name) implements Expression {}

  record ListLiteral(List<Expression> items) implements Expression {}

  record TupleLiteral(List<Expression> items) implements Expression {}

  record DictLiteral(List<Expression> keys, List<Expression> values) implements Expression {}

  record Negated(Expression operand) implements Expression {}

  record Minus(Expression operand) implements Expression {}

  record Plus(Expression operand) implements Expression {}

  record And(Expression left, Expression right) implements Expression {}

  record Or(Expression left, Expression right) implements Expression {}

  record Binary(String operator, Expression left, Expression right, int line)
      implements Expression {}

  /** {@code a < b <= c}: operator i stands between operands i and i + 1. */
  record Comparison(List<Expression> operands, List<String> operators, int line)
      implements Expression {}

  record Concatenation(List<Expression> parts) implements Expression {}

  record Conditional(Expression test, Expression then, @Nullable Expression otherwise)
      implements Expression {}

  record Attribute(Expression target, String name, int line) implements Expression {}

  record Item(Expression target, Expression key, int line) implements Expression {}

  record Slice(@Nullable Expression start, @Nullable Expression stop, @Nullable Expression step)
      implements Expression {}

  record Call(Expression target, CallArguments arguments, int line) implements Expression {}

  /**
   * {@code input | name(arguments)}.
   *
   * @param input null stands for the text of the block that the filter closes
   */
  record Filter(@Nullable Expression input, String name, CallArguments arguments, int line)
      implements Expression {}

  record Test(Expression input, String name, CallArguments arguments, int line)
      implements Expression {}

  /** Arguments as written: positional, named, {@code *sequence} and {@code **mapping}. */
  record CallArguments(
      List<Expression> positional,
      List<String> names,
      List<Expression> named,
      @Nullable Expression sequence,
      @Nullable Expression mapping) {

    static final CallArguments NONE =
        new CallArguments(List.of(), List.of(), List.of(), null, null);
  }
}
