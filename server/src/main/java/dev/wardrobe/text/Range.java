package dev.wardrobe.text;

import java.math.BigInteger;
import java.util.AbstractList;
import java.util.List;

/** Python's range, at most {@link #MAX_LENGTH} long, as in Jinja's sandbox. */
record Range(BigInteger start, BigInteger stop, BigInteger step) {

  static final int MAX_LENGTH = 100_000;

  static Range of(Arguments arguments) {
    if (!arguments.named().isEmpty()) {
      throw new TemplateFailure("range() takes no keyword arguments");
    }
    List<Object> bounds = arguments.positional();
    if (bounds.isEmpty() || bounds.size() > 3) {
      throw new TemplateFailure("range expected 1 to 3 arguments, got " + bounds.size());
    }
    BigInteger first = Values.integer(bounds.getFirst());
    BigInteger start = bounds.size() == 1 ? BigInteger.ZERO : first;
    BigInteger stop = bounds.size() == 1 ? first : Values.integer(bounds.get(1));
    BigInteger step = bounds.size() == 3 ? Values.integer(bounds.get(2)) : BigInteger.ONE;
    if (step.signum() == 0) {
      throw new TemplateFailure("range() arg 3 must not be zero");
    }
    Range range = new Range(start, stop, step);
    if (range.exactLength().compareTo(BigInteger.valueOf(MAX_LENGTH)) > 0) {
      throw new TemplateFailure(
          "Range too big. The sandbox blocks ranges larger than MAX_RANGE (" + MAX_LENGTH + ").");
    }
    return range;
  }

  private BigInteger exactLength() {
    BigInteger span = step.signum() > 0 ? stop.subtract(start) : start.subtract(stop);
    if (span.signum() <= 0) {
      return BigInteger.ZERO;
    }
    BigInteger stride = step.abs();
    return span.add(stride).subtract(BigInteger.ONE).divide(stride);
  }

  List<Object> items() {
    int length = exactLength().intValueExact();
    return new AbstractList<>() {
      @Override
      public Object get(int index) {
        return start.add(step.multiply(BigInteger.valueOf(index)));
      }

      @Override
      public int size() {
        return length;
      }
    };
  }
}
