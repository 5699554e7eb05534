# Install from a tap: brew install OWNER/TAP/agent-mesh, then: brew services start agent-mesh
class AgentMesh < Formula
  include Language::Python::Virtualenv

  desc "Messages between coding agents: nothing lost, woken when idle"
  homepage "@HOMEPAGE@"
  # A release fills these in, and the resources: brew update-python-resources agent-mesh
  url "@URL@"
  sha256 "@SHA256@"
  license "MIT"

  depends_on "python@3.13"
  # The embedded store, where the wheel that brings it is not to be had.
  depends_on "valkey"

  def install
    virtualenv_install_with_resources
  end

  service do
    # Never detached: launchd watches the process that it starts.
    run [opt_libexec/"bin/python", "-P", "-m", "meshd", "--log-file", var/"log/agent-mesh.log"]
    environment_variables AGENT_MESH_MANAGED_BY: OS.mac? ? "launchd" : "user"
    keep_alive successful_exit: false
    run_type :immediate
    process_type :interactive
    working_dir "/"
    error_log_path var/"log/agent-mesh.err.log"
  end

  test do
    ENV["XDG_RUNTIME_DIR"] = testpath/"run"
    ENV["HOME"] = testpath
    assert_match version.to_s, shell_output("#{bin}/meshctl version")
    assert_match "is running", shell_output("#{bin}/meshctl up")
    system bin/"meshctl", "down"
  end
end
