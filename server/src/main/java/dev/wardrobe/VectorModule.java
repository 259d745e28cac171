package dev.wardrobe;

import java.lang.reflect.InvocationTargetException;

/**
 * The JDK's incubating module that the CPU kernels compute with, resolved while the program runs.
 *
 * <p>{@code --add-modules jdk.incubator.vector} does the same, but the JDK then writes a warning to
 * the standard error stream, where only our own lines belong, and no option turns it off. The
 * module ends in the same class loader either way, and so with the same intrinsics. The jar's
 * manifest exports the package that is called here ({@code Add-Exports}).
 */
final class VectorModule {
  private static final String NAME = "jdk.incubator.vector";

  private VectorModule() {}

  /**
   * Resolves the module, unless the command line has done so.
   *
   * @throws IllegalStateException where this JDK does not let us; the message says what to do
   */
  static void resolve() {
    if (ModuleLayer.boot().findModule(NAME).isPresent()) {
      return;
    }
    try {
      Class.forName("jdk.internal.module.Modules")
          .getMethod("loadModule", String.class)
          .invoke(null, NAME);
    } catch (ReflectiveOperationException e) {
      Throwable cause = e instanceof InvocationTargetException ? e.getCause() : e;
      throw new IllegalStateException(
          "this Java runtime did not resolve the module "
              + NAME
              + " on request; start it with --add-modules="
              + NAME,
          cause);
    }
  }
}
