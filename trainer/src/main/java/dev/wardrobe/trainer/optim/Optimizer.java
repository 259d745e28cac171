package dev.wardrobe.trainer.optim;

import dev.wardrobe.compute.Backend;
import dev.wardrobe.compute.Gradients;
import dev.wardrobe.compute.UpdateRule;
import dev.wardrobe.trainer.backward.Parameter;
import java.io.IOException;
import java.lang.foreign.MemorySegment;
import java.nio.file.Path;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * What makes parameters follow their gradients; its state lies in pages. Bits depend on parameters,
 * gradients and rates alone: not on threads, pages or the budget.
 *
 * <p>For the thread that owns the backend. A step that fails has changed some parameters and not
 * others; then the optimizer refuses all but {@link #close}, and the run goes on from a checkpoint.
 */
public final class Optimizer implements AutoCloseable {
  private final List<Parameter> parameters;
  private final OptimizerOptions options;
  private final Gradients gradients;
  private final StateLayout layout;
  private final Pager pager;
  private long steps;

  /**
   * @param paging of state, if the options are for a paged optimizer; else all stays in memory
   * @throws OptimizerException if the disk has no room for what is to be paged there
   * @throws dev.wardrobe.compute.OutOfMemoryException if memory has none for what is to stay
   */
  public Optimizer(
      List<Parameter> parameters, OptimizerOptions options, Backend backend, PagerOptions paging)
      throws OptimizerException {
    this(parameters, options, backend, options.paged() ? paging : PagerOptions.RESIDENT, null);
  }

  /**
   * @param store where pages lie that leave memory, rather than where {@code paging} says
   */
  Optimizer(
      List<Parameter> parameters,
      OptimizerOptions options,
      Backend backend,
      PagerOptions paging,
      @Nullable PageStore store)
      throws OptimizerException {
    this.parameters = List.copyOf(parameters);
    this.options = options;
    gradients = backend.gradients();
    layout = StateLayout.of(this.parameters, options, paging.pageBytes());
    pager = Pager.of(layout, paging, store, backend::trim);
  }

  /** Steps taken so far. */
  public long steps() {
    return steps;
  }

  /** {@code √Σ g²} over all gradients, parameters in order; not finite if one of them is not. */
  public double gradientNorm() {
    double sum = 0;
    for (Parameter parameter : parameters) {
      sum += gradients.sumOfSquares(parameter.gradient());
    }
    return Math.sqrt(sum);
  }

  /**
   * Scales gradients so that their norm is at most {@code most}, as PyTorch does: {@code g *= most
   * / (norm + 1e-6)} where that is below 1. Leaves them alone if the norm is not finite: then no
   * step should be taken.
   *
   * @return the norm before
   */
  public double clip(double most) {
    if (!(most > 0)) {
      throw new IllegalArgumentException("gradient norm: expected a limit above 0, got " + most);
    }
    double norm = gradientNorm();
    float factor = (float) (most / (norm + 1e-6));
    if (Double.isFinite(norm) && factor < 1) {
      for (Parameter parameter : parameters) {
        gradients.scale(parameter.gradient(), factor);
      }
    }
    return norm;
  }

  /**
   * Takes a step along gradients that are finite, and leaves them as they are.
   *
   * @param rate of parameters whose group does not multiply it
   * @throws OptimizerException if state could not be read or written
   */
  public void step(double rate) throws OptimizerException {
    if (!(rate >= 0) || Double.isInfinite(rate)) {
      throw new IllegalArgumentException("learning rate: expected at least 0, got " + rate);
    }
    long step = steps + 1;
    if (layout.pages() == 0) {
      // Without state there are no pages to go by.
      for (Parameter parameter : parameters) {
        update(parameter, rate, step, 0, (int) parameter.size(), MemorySegment.NULL);
      }
    }
    pager.scan(
        (page, bytes) -> {
          for (StateLayout.Part part : layout.parts(page)) {
            Parameter parameter = parameters.get(part.parameter());
            var state = bytes.asSlice(part.offset(), part.bytes());
            update(parameter, rate, step, part.from(), part.count(), state);
          }
        });
    steps = step;
  }

  private void update(
      Parameter parameter, double rate, long step, int from, int count, MemorySegment state) {
    UpdateRule rule = options.at(step, rate, parameter);
    gradients.update(rule, parameter.value(), parameter.gradient(), from, count, state);
  }

  /**
   * Makes room in fast memory for something that needs it for a while, by moving pages out; steps
   * go on, with less. {@link #restore} ends it.
   *
   * @return bytes of room made: whole pages, all but the last at most, and none without paging
   */
  public long makeRoom(long bytes) throws OptimizerException {
    return pager.makeRoom(bytes);
  }

  /** Brings back what {@link #makeRoom} moved out. */
  public void restore() throws OptimizerException {
    pager.restore();
  }

  /**
   * Writes state and the number of steps to a file, page by page.
   *
   * @return the digest of what was written, in hexadecimal: of the state, however it is paged
   */
  public String save(Path file) throws IOException {
    return new StateFile(parameters, options, layout).save(file, steps, pager);
  }

  /**
   * Goes on from a file that {@link #save} wrote for the same parameters and kind of optimizer,
   * whatever its pages and budget were. A file that is not that, or is damaged, changes nothing.
   *
   * @return the file's digest, as {@link #save} returned it
   */
  public String load(Path file) throws IOException {
    StateFile.Loaded loaded = new StateFile(parameters, options, layout).load(file, pager);
    steps = loaded.steps();
    return loaded.digest();
  }

  /** Where state lies, and what moved so far. */
  public PagerStats paging() {
    return pager.stats();
  }

  /** What each step moves while no room is made. */
  public PagePlan plan() {
    return pager.plan();
  }

  /** Frees all state; a second time does nothing. */
  @Override
  public void close() throws IOException {
    pager.close();
  }
}
